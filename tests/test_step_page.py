"""`benchmarks/step.md` holds what its script makes of `step.json`."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def page() -> ModuleType:
    specification = importlib.util.spec_from_file_location("step_page", FOLDER / "step_page.py")
    assert specification and specification.loader
    module = sys.modules["step_page"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_json(page: ModuleType) -> None:
    content = json.loads((FOLDER / "step.json").read_text(encoding="utf-8"))
    assert page.tables(content) in (FOLDER / "step.md").read_text(encoding="utf-8")


def test_ratios_are_taken_within_rounds(page: ModuleType) -> None:
    """A row that was left out of every second round is compared with the rounds that it was in."""
    rows = {"slow": {"seconds": [20.0, 60.0]}, "quick": {"seconds": [10.0, 99.0, 20.0]}}
    assert page.ratios({"rows": rows}, "slow", "quick") == [2.0, 3.0]
