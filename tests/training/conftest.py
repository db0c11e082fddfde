from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

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
