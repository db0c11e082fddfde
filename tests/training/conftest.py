from __future__ import annotations

import importlib.util
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

_FILE = Path(__file__).with_name("worker.py")


@pytest.fixture(scope="session")
def worker() -> ModuleType:
    """The tiny run of `worker.py`, for use in this process."""
    specification = importlib.util.spec_from_file_location("training_worker", _FILE)
    assert specification and specification.loader
    module = sys.modules["training_worker"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def in_other_processes() -> Callable[[str, Path], str]:
    """(job, directory): run `worker.py` as a program, warnings being errors there too; what it printed."""

    def run(job: str, directory: Path) -> str:
        command = [sys.executable, "-W", "error", str(_FILE), job, str(directory)]
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240, check=False
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
