"""The arithmetic of long runs and of `benchmarks/scale.py`: the best interval by brute force, and quantities that are
known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from robustree.reproducing.long_runs import Assumptions, best_interval, estimate, overhead

FILE = Path(__file__).parent.parent / "benchmarks" / "scale.py"


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    specification = importlib.util.spec_from_file_location("scale", FILE)
    assert specification and specification.loader
    module = sys.modules["scale"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("save", [0.1, 4.0, 60.0])
@pytest.mark.parametrize("failure", [600.0, 1e5, 1e7])
def test_no_other_interval_loses_less(save: float, failure: float) -> None:
    """Daly's formula is a series: within 0.1 % of the least overhead on a fine grid."""
    best = overhead(best_interval(save, failure), save, failure, 0.0)
    grid = [1.01**k for k in range(-200, 1800)]
    least = min(overhead(interval, save, failure, 0.0) for interval in grid if interval < 20 * failure)
    assert least == pytest.approx(best, rel=1e-3)
    assert best > 1


def test_the_interval_is_youngs_where_saving_is_quick() -> None:
    assert best_interval(1.0, 1e8) == pytest.approx((2 * 1.0 * 1e8) ** 0.5, rel=1e-3)


def test_without_failures_a_run_takes_its_steps_and_its_data_flows_as_they_do() -> None:
    given: dict[str, Any] = {
        "step_seconds": 2.0,
        "batch_size": 64,
        "gpus": 2,
        "parameters": 1e6,
        "images": 6.4e6,
        "epochs": 3.0,
        "image_bytes": 1e5,
        "efficiency": 1.0,
        "gpu_failure_hours": 1e12,
        "write_bytes": 1e9,
        "restart_seconds": 300.0,
    }
    row = estimate(Assumptions(**given), 8)
    assert row.gpu_hours == pytest.approx(3 * 1e5 * 2.0 * 2 / 3600, rel=1e-5)  # steps x seconds x GPUs
    assert row.days == pytest.approx(row.gpu_hours / 8 / 24)
    assert row.data_bytes == pytest.approx(8 * 16 * 1e5)  # 16 images a second and GPU
    assert row.failure_hours == pytest.approx(1e12 / 8)
    assert row.lost < 1e-5
    lossy = estimate(Assumptions(**given | {"gpu_failure_hours": 100.0}), 1000)
    assert lossy.gpu_hours == pytest.approx(row.gpu_hours / (1 - lossy.lost), rel=1e-5)
    assert 0.5 < lossy.lost < 1  # a failure every six minutes, five of them for the restart


def test_the_table_on_the_page_is_what_the_script_prints(
    scale: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (FILE.parent.parent / "docs" / "scale.md").read_text(encoding="utf-8")
    command = next(line for line in page.splitlines() if line.startswith("python benchmarks/scale.py"))
    monkeypatch.setattr(sys, "argv", command.split()[1:])
    scale.main()
    assert capsys.readouterr().out in page
