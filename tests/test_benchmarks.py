"""Every benchmark and recipe can be imported: they are run by hand, so nothing else tells that a name has gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("folder", ["benchmarks", "recipes"])
def test_every_script_imports(folder: str) -> None:
    names = sorted(file.stem for file in (ROOT / folder).glob("*.py"))
    assert names
    code = f"from importlib import import_module\nfor name in {names!r}: import_module(name)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
