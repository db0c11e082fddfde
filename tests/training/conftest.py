from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor

from robustree.training import train

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def worker() -> ModuleType:
    """The tiny run of `tiny.py`, and its jobs for other processes."""
    return importlib.import_module("tests.training.worker")


@pytest.fixture
def in_other_processes() -> Callable[[str, Path], str]:
    """(job, directory): run `worker.py` as a program, warnings being errors there too; what it printed."""

    def run(job: str, directory: Path) -> str:
        command = [sys.executable, "-W", "error", "-m", "tests.training.worker", job, str(directory)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def run(worker: ModuleType) -> Callable[..., dict[str, Tensor]]:
    """(directory, stop_after=, **options): train the worker's run, or one with changes; a copy of its weights."""

    def go(directory: Path, *, stop_after: int = 1000, **options: Any) -> dict[str, Tensor]:
        recipe, calls = options.pop("recipe", worker.RECIPE), iter(range(1, 1001))
        model = worker.tree_model(recipe.space)
        train(model, recipe, worker.Pictures(), directory=directory, stop=lambda: next(calls) >= stop_after, **options)
        return {name: value.clone() for name, value in model.state_dict().items()}

    return go
