"""The tiny run in other processes: `python -m tests.training.worker JOB DIRECTORY` with a job from `JOBS`.

Processes are forked after the imports, which take seconds, so that many of them can be killed in one test.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustree.checkpoint import weights_digest
from robustree.geometry import Poincare, Sphere
from robustree.methods import TeCoA
from robustree.processes import LostProcessError
from robustree.training import NonFiniteError, NotEnoughMemoryError, Progress, Runtime, loop, train
from tests.training.tiny import FLAT, METHODS, RECIPE, Cornered, Pictures, layered, streamed_pictures, tree_model

SHARED = ("tecoa", "fare", "hierarchical")
KILLS = ("steps", "before_rename", "after_rename", "in_flush")
RANDOM_KILLS = 24


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
