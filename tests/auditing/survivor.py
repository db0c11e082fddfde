"""A tiny audit, and a program that kills it at random moments: `survivor.py kill DIRECTORY SEED`.

Processes are forked after the imports, which take seconds, so that many of them can be killed in one test. Disk writes
are slowed down in the killed processes, so that kills land in the middle of them.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from robustree.attacks import PGD, AutoAttack, Square, Threat
from robustree.auditing.audit import Status, Subject, audit
from robustree.auditing.plan import LevelAttack, Plan
from robustree.auditing.rows import ROWS
from robustree.data import AuditImages
from robustree.geometry import Sphere
from robustree.taxonomy import Forest, TreeSource, build_forest
from robustree.tree_model import Head, TreeModel

LEAVES = ("dog", "cat", "owl", "pear", "fig")
FOREST: Forest = build_forest(
    LEAVES, [TreeSource("kind", {"animal": {"mammal": ["dog", "cat"], "bird": ["owl"]}, "food": ["pear", "fig"]})]
)
SIDE, COUNT, KILLS = 4, 12, 24
PLAN = Plan(
    threat=Threat(eps=16 / 255),
    attacks=(
        LevelAttack(PGD(steps=3), "margin"),
        LevelAttack(PGD(steps=2, restarts=2), "cross_entropy"),
        LevelAttack(Square(queries=10), "margin"),
        LevelAttack(AutoAttack(version="standard", steps=2, queries=5), None),
    ),
    all_levels=PGD(steps=2),
    batch_size=1,
    seed=5,
)


class Encoder(nn.Module):
    """Images (B, 3, 4, 4) -> embeddings (B, 8)."""

    def __init__(self, seed: int):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.layer = nn.Linear(3 * SIDE * SIDE, 8)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw) / 4

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.layer(images.flatten(1) - 0.5))


def subject(name: str = "tiny", seed: int = 0) -> Subject:
    """The model under audit: the same weights every time."""
    draw = torch.Generator().manual_seed(seed + 100)
    projection = nn.Linear(12, 8, bias=False)
    projection.weight.data = torch.randn(8, 12, generator=draw)
    features = torch.randn(len(FOREST.names), 12, generator=draw)
    model = TreeModel(Encoder(seed), projection, features, FOREST, Head(space=Sphere(), scale=20.0), image_norm=1.5)
    return Subject(name, model.requires_grad_(False).eval())


def pictures() -> AuditImages:
    """Twelve images, most of them labelled as the model sees them."""
    pixels = torch.rand(COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        leaves = subject().model(pixels).nodes[:, : len(LEAVES)].argmax(1)
    leaves[:2] = (leaves[:2] + 1) % len(LEAVES)
    return AuditImages(pixels, leaves, tuple(f"noise/{k:02d}" for k in range(COUNT)))


def run(directory: Path, report: Callable[[Status], None] = lambda status: None, **changes: Any) -> None:
    """The whole audit into a directory."""
    asked: dict[str, Any] = {"subjects": [subject()], "images": pictures(), "plan": PLAN} | changes
    audit(forest=FOREST, directory=directory, command="robustree audit tiny", report=report, **asked)


class Slow:
    """A file whose writes come in pieces, with pauses."""

    def __init__(self, file: IO[bytes], dice: random.Random):
        self.file, self.dice = file, dice

    def write(self, data: bytes) -> int:
        for start in range(0, len(data), 997):
            self.file.write(data[start : start + 997])
            self.file.flush()
            time.sleep(self.dice.uniform(0, 0.004))
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.file)

    def __enter__(self) -> Slow:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _slow_disk(dice: random.Random) -> None:
    path_open, fsync, replace = Path.open, os.fsync, os.replace

    def opened(self: Path, *arguments: Any, **named: Any) -> Any:
        file = path_open(self, *arguments, **named)
        return Slow(file, dice) if self.name == ROWS else file

    def late(call: Callable[..., None]) -> Callable[..., None]:
        def delayed(*arguments: Any) -> None:
            time.sleep(dice.uniform(0, 0.004))
            call(*arguments)
            time.sleep(dice.uniform(0, 0.004))

        return delayed

    Path.open = opened  # type: ignore[method-assign]
    os.fsync, os.replace = late(fsync), late(replace)  # type: ignore[assignment]


def _child(job: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        job()
        os._exit(0)
    return child


def kill(directory: Path, seed: int) -> None:
    """Audits that are killed after random times and started again, until they are done; one line says how many kills
    there were, and after how many of them the rows ended in the middle of a line."""
    dice, kills, torn, rounds = random.Random(seed), 0, 0, 0
    while kills < KILLS:
        rounds += 1
        folder = directory / f"round {rounds}"
        while True:
            begun = dice.random()

            def job(seed: float = begun, folder: Path = folder) -> None:
                _slow_disk(random.Random(seed))
                run(folder)

            child = _child(job)
            time.sleep(dice.uniform(0.0, 0.4))
            os.kill(child, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status == 0:
                break
            if status != -signal.SIGKILL:
                raise SystemExit(f"the audit ended by itself, with {status}.")
            kills += 1
            rows = folder / ROWS
            torn += rows.exists() and not rows.read_bytes().endswith(b"\n") and rows.stat().st_size > 0
            if kills >= 2 * KILLS:  # a slow machine: the last one may end in peace
                run(folder)
                break
    print(f"{kills} kills, {torn} torn, {rounds} rounds")


def hold(directory: Path) -> None:
    """An audit that says when it is in the middle, and then waits until its input ends."""

    def report(status: Status) -> None:
        if status.done == 5:
            print("in the middle", flush=True)
            sys.stdin.read()

    run(directory, report)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "kill":
        kill(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        hold(Path(sys.argv[2]))
