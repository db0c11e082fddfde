"""`benchmarks/step.md` holds what its script makes of `step.json`."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("step_page")


def test_the_tables_are_those_of_the_json(page: ModuleType) -> None:
    content = json.loads((FOLDER / "step.json").read_text(encoding="utf-8"))
    assert page.tables(content) in (FOLDER / "step.md").read_text(encoding="utf-8")


def test_ratios_are_taken_within_rounds(page: ModuleType) -> None:
    """A row that was left out of every second round is compared with the rounds that it was in."""
    rows = {"slow": {"seconds": [20.0, 60.0]}, "quick": {"seconds": [10.0, 99.0, 20.0]}}
    assert page.ratios({"rows": rows}, "slow", "quick") == [2.0, 3.0]
