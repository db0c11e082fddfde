"""One tiny run, and a program that does it in other processes: `worker.py JOB DIRECTORY` with a job from `JOBS`.

Processes are forked after the imports, which take seconds, so that many of them can be killed in one test.
"""

from __future__ import annotations

import io
import os
import random
import signal
import socket
import sys
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustree import data
from robustree.attacks import PGD, Threat
from robustree.checkpoint import weights_digest
from robustree.geometry import Poincare, Space, Sphere
from robustree.methods import FARE, PMGAFT, Hierarchical, TeCoA
from robustree.processes import LostProcessError
from robustree.taxonomy import Forest, TreeSource, build_forest
from robustree.training import NonFiniteError, NotEnoughMemoryError, Progress, Recipe, Runtime, loop, train
from robustree.tree_model import Head, TreeModel

LEAVES = ("dog", "cat", "owl", "pear", "fig")
FOREST: Forest = build_forest(
    LEAVES, [TreeSource("kind", {"animal": {"mammal": ["dog", "cat"], "bird": ["owl"]}, "food": ["pear", "fig"]})]
)
SIDE = 4
RECIPE = Recipe(
    method=Hierarchical(),
    space=Poincare(),
    threat=Threat(eps=8 / 255),
    attack=PGD(steps=2, step_size=0.5, best=False),
    steps=10,
    batch_size=4,
    micro_batches=2,
    lr=1e-2,
)
METHODS = {
    "tecoa": (TeCoA(), Sphere()),
    "fare": (FARE(), Sphere()),
    "pmg_aft": (PMGAFT(), Sphere()),
    "hierarchical": (Hierarchical(), Poincare()),
    "per_level": (Hierarchical(perturbation="per_level"), Poincare()),
}
SHARED = ("tecoa", "fare", "hierarchical")
KILLS = ("steps", "before_rename", "after_rename", "in_flush")
RANDOM_KILLS = 24
FLAT = replace(RECIPE, method=TeCoA(), space=Sphere(), micro_batches=1)


class Encoder(nn.Module):
    """Two layers: images (B, 3, 4, 4) -> embeddings (B, 8)."""

    def __init__(self, seed: int):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.first, self.second = nn.Linear(3 * SIDE * SIDE, 16), nn.Linear(16, 8)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw) / 4

    def forward(self, images: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(images.flatten(1) - 0.5)))


def tree_model(space: Space | None = None, *, seed: int = 0, forest: Forest = FOREST) -> TreeModel:
    """The model before training: the same weights every time."""
    draw = torch.Generator().manual_seed(seed + 100)
    projection = nn.Linear(12, 8, bias=False)
    projection.weight.data = torch.randn(8, 12, generator=draw)
    features = torch.randn(len(forest.names), 12, generator=draw)
    head = Head(space=space or Poincare(), scale=5.0)
    return TreeModel(Encoder(seed), projection, features, forest, head, image_norm=1.5)


@dataclass
class Pictures:
    """Noisy pictures, one colour a class; `seen` records the images asked for, `noise` the generators' seeds."""

    count: int = 22
    strength: float = 0.1
    seen: list[list[int]] = field(default_factory=list)
    noise: list[int] = field(default_factory=list)
    spoil_at: int | None = None

    @property
    def leaves(self) -> Tensor:
        return torch.arange(self.count) % len(LEAVES)

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor:
        self.seen.append(index.tolist())
        self.noise.append(generator.initial_seed())
        colours = torch.rand(len(LEAVES), 3, 1, 1, generator=torch.Generator().manual_seed(5))
        grain = torch.rand(self.count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(6))
        images = 0.6 * colours[self.leaves[index]] + 0.2 * grain[index]
        images = images + self.strength * torch.rand(images.shape, generator=generator)
        return images * torch.nan if len(self.seen) == self.spoil_at else images


class Streamed:
    """22 noisy pictures in three tars, read through a window; `seen` records the images asked for."""

    def __init__(self, root: Path, labels: Sequence[int]):
        if not root.exists():
            _write_tars(root, labels)
        self._data = data.Streamed(data.open_shards(root, LEAVES, window=8), SIDE)
        self.leaves, self.counts = self._data.leaves, self._data.counts
        self.fingerprint = self._data.fingerprint
        self.seen: list[list[int]] = []

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor:
        self.seen.append(index.tolist())
        return self._data.images(index, generator)


def streamed_pictures(root: Path, labels: Sequence[int] = range(22)) -> Streamed:
    return Streamed(root, labels)


def _write_tars(root: Path, labels: Sequence[int]) -> None:
    root.mkdir()
    grain = torch.rand(len(labels), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(6))
    for shard, numbers in enumerate((range(9), range(9, 11), range(11, len(labels)))):
        with tarfile.open(root / f"{shard}.tar", "w") as archive:
            for number in numbers:
                for suffix, content in (
                    ("png", data.png_bytes(grain[number])),
                    ("cls", str(labels[number] % len(LEAVES)).encode()),
                ):
                    member = tarfile.TarInfo(f"{number}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


@dataclass(frozen=True, kw_only=True)
class Cornered(TeCoA):
    """A finite loss whose gradient is not: the root at 0."""

    def loss(self, context: Any, adversarial: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = super().loss(context, adversarial)
        return loss + (0 * adversarial[0].scores.nodes).sum().sqrt(), terms


def _child(job: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        job()
        sys.stdout.flush()
        os._exit(0)
    return child


def _killed(job: Callable[[], None]) -> None:
    """Do a job in a child process that must die of SIGKILL."""
    child = _child(job)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
        raise SystemExit(f"the child was to be killed, but ended with status {status}.")


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill(directory: Path) -> None:
    """Runs that are killed after certain steps, in the middle of saving, and again after they were resumed."""

    def run(name: str, report: Callable[[Progress], None] = lambda progress: None) -> None:
        train(tree_model(), RECIPE, Pictures(), directory=directory / name, save_every=2, report=report)

    for last in (1, 4, 5, 9):
        _killed(lambda last=last: run("steps", lambda progress: _die() if progress.step >= last else None))

    def interrupting(function: str, calls: int, *, after: bool) -> None:
        original = getattr(os, function)

        def patched(*arguments: object) -> None:
            nonlocal calls
            calls -= 1
            if calls == 0:
                if after:
                    original(*arguments)
                _die()
            original(*arguments)

        setattr(os, function, patched)

    for name, function, after in (
        ("before_rename", "replace", False),
        ("after_rename", "replace", True),
        ("in_flush", "fsync", False),
    ):
        for calls in (3, 4):  # the log and the state of two saves

            def job(name: str = name, function: str = function, after: bool = after, calls: int = calls) -> None:
                interrupting(function, calls, after=after)
                run(name)

            _killed(job)


def random_kills(directory: Path) -> None:
    """Runs that are killed after random times and started again, until they are done; disks are slow, so that kills
    land in the middle of writing."""
    dice, kills, rounds = random.Random(3), 0, 0
    fsync, rename = os.fsync, os.replace

    def late(call: Callable[..., None]) -> Callable[..., None]:
        def delayed(*arguments: object) -> None:
            time.sleep(dice.uniform(0, 0.005))
            call(*arguments)
            time.sleep(dice.uniform(0, 0.005))

        return delayed

    while kills < RANDOM_KILLS:
        rounds += 1
        folder = directory / f"round {rounds}"

        def job(folder: Path = folder) -> None:
            os.fsync, os.replace = late(fsync), late(rename)
            train(tree_model(), RECIPE, Pictures(), directory=folder, save_every=2)

        while True:
            child = _child(job)
            time.sleep(dice.uniform(0.0, 0.3) if kills < 2 * RANDOM_KILLS else 60)
            os.kill(child, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status == 0:
                break
            if status != -signal.SIGKILL:
                raise SystemExit(f"the run ended by itself, with {status}.")
            kills += 1
    print(f"{kills} kills, {rounds} rounds")


def together(member: Callable[[int], None], world: int = 2) -> list[int]:
    """The exit codes of processes that each do the job of a member."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def job(rank: int) -> None:
        signal.alarm(200)  # a process that waits for the other for ever ends with the test
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        member(rank)

    children = [_child(lambda rank=rank: job(rank)) for rank in range(world)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def pair(directory: Path) -> None:
    """Two processes that train together, also from what one process has begun."""

    def begin() -> None:
        steps: list[int] = []
        report = lambda progress: steps.append(progress.step)  # noqa: E731
        train(
            tree_model(Sphere()),
            FLAT,
            Pictures(),
            directory=directory / "grown",
            report=report,
            stop=lambda: len(steps) == 3,
        )

    os.waitpid(_child(begin), 0)
    codes = together(lambda rank: _member(directory, rank))
    if any(codes):
        raise SystemExit(f"the processes ended with {codes}.")


def _member(directory: Path, rank: int) -> None:
    runtime = Runtime()
    if (runtime.rank, runtime.world) != (rank, 2):
        raise SystemExit(f"process {rank} became {runtime.rank} of {runtime.world}.")
    found: dict[str, object] = {}
    for name, (method, space) in METHODS.items():
        recipe, model = replace(RECIPE, method=method, space=space, micro_batches=1, steps=4), tree_model(space)
        after: list[str] = []
        report = lambda progress, model=model, after=after: after.append(weights_digest(model))  # noqa: E731
        train(model, recipe, Pictures(), directory=directory / name, runtime=runtime, report=report)
        found[name] = model.state_dict()
        found[f"{name} after each step"] = after
    model, streamed = tree_model(), streamed_pictures(directory / f"shards{rank}")
    train(
        model, replace(RECIPE, micro_batches=1, window=8), streamed, directory=directory / "streamed", runtime=runtime
    )
    found |= {"streamed": model.state_dict(), "streamed saw": streamed.seen}
    for name in ("grown", "short"):
        model = tree_model(Sphere())
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with _little_memory(from_call=3 if name == "short" and rank == 1 else 1000):
                train(model, FLAT, Pictures(), directory=directory / name, runtime=runtime)
        found[name] = model.state_dict()
        found[f"{name} said"] = [str(warning.message) for warning in said]
    model, steps = tree_model(), []
    recipe = replace(RECIPE, micro_batches=1)
    train(
        model,
        recipe,
        Pictures(),
        directory=directory / "stopped",
        runtime=runtime,
        report=lambda progress: steps.append(progress.step),
        stop=lambda: rank == 1 and len(steps) == 3,
    )
    found["stopped"] = steps
    try:
        spoilt = Pictures(spoil_at=2 if rank == 1 else None)
        train(tree_model(), recipe, spoilt, directory=directory / "spoilt", runtime=runtime)
    except NonFiniteError as error:
        found["spoilt"] = str(error)
    try:
        cornered = replace(FLAT, method=Cornered() if rank == 1 else TeCoA())
        train(tree_model(Sphere()), cornered, Pictures(), directory=directory / "cornered", runtime=runtime)
    except NonFiniteError as error:
        found["cornered"] = str(error)
    torch.save(found, directory / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


@contextmanager
def _little_memory(from_call: int) -> Iterator[None]:
    """From a training step on, memory holds one image."""
    original, calls = loop.training_step, []

    def step(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) >= from_call and len(arguments[6]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(*arguments)

    loop.training_step = step
    try:
        yield
    finally:
        loop.training_step = original


def lost(directory: Path) -> None:
    """Two processes, one of which is killed after its fifth step."""

    def member(rank: int) -> None:
        def report(progress: Progress) -> None:
            if progress.step == 5 and rank == 1:
                (directory / "killed").write_text(str(time.monotonic()))
                _die()

        try:
            train(tree_model(Sphere()), FLAT, Pictures(), directory=directory / "run", save_every=2, report=report)
        except LostProcessError as error:
            seconds = time.monotonic() - float((directory / "killed").read_text())
            (directory / "said").write_text(f"{seconds}\n{error}")
            os._exit(1)

    codes = together(member)
    if codes != [1, -signal.SIGKILL]:
        raise SystemExit(f"the processes ended with {codes}.")


class Layered(nn.Module):
    """The encoder as a list of layers, as transformers have them."""

    def __init__(self, seed: int):
        super().__init__()
        plain = Encoder(seed)
        self.layers = nn.ModuleList([plain.first, plain.second])

    def forward(self, images: Tensor) -> Tensor:
        first, second = self.layers
        return second(torch.tanh(first(images.flatten(1) - 0.5)))


def layered(space: Space) -> TreeModel:
    model = tree_model(space)
    model.image_encoder = Layered(0)
    return model


def shared_weights(directory: Path) -> None:
    """Two processes that share the weights: every method, and a run that one process began and ends."""
    alone = replace(RECIPE, micro_batches=2, steps=6)

    def begin() -> None:
        steps = iter(range(1, 7))
        train(layered(Poincare()), alone, Pictures(), directory=directory / "back", stop=lambda: next(steps) == 2)

    os.waitpid(_child(begin), 0)
    codes = together(lambda rank: _sharing_member(directory, rank))
    if any(codes):
        raise SystemExit(f"the processes ended with {codes}.")


def _sharing_member(directory: Path, rank: int) -> None:
    runtime, found, kept = Runtime(shard_weights=True), dict[str, object](), list[float]()
    original = loop.training_step

    def step(model: Any, *rest: Any) -> Any:
        parameters = list(model.parameters())
        local = sum(p.to_local().numel() for p in parameters)
        kept.append(local / sum(p.numel() for p in parameters))
        return original(model, *rest)

    loop.training_step = step
    for name in SHARED:
        method, space = METHODS[name]
        recipe, model = replace(RECIPE, method=method, space=space, micro_batches=1, steps=4), layered(space)
        train(model, recipe, Pictures(), directory=directory / name, runtime=runtime)
        found[name] = model.state_dict()
    model, steps = layered(Poincare()), iter(range(3, 7))
    recipe = replace(RECIPE, micro_batches=2, steps=6)
    train(model, recipe, Pictures(), directory=directory / "back", runtime=runtime, stop=lambda: next(steps) == 4)
    found["kept"] = max(kept)
    try:
        with _little_memory(from_call=1):
            train(layered(Sphere()), FLAT, Pictures(), directory=directory / "short", runtime=runtime)
    except NotEnoughMemoryError as error:
        found["short"] = str(error)
    torch.save(found, directory / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


JOBS = {"kill": kill, "random_kills": random_kills, "pair": pair, "lost": lost, "shared_weights": shared_weights}

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.optim.AdamW([nn.Parameter(torch.zeros(1))])  # the first optimiser imports for a second
    JOBS[sys.argv[1]](Path(sys.argv[2]))
