"""Runs that were killed with SIGKILL, and runs of two processes, equal the run that nobody disturbed."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from robustree.training import train

InOtherProcesses = Callable[[str, Path], None]


def _log(directory: Path) -> list[dict[str, float]]:
    with (directory / "log.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_a_killed_run_resumes_to_the_same_weights_log_and_state(
    worker: ModuleType, in_other_processes: InOtherProcesses, tmp_path: Path
) -> None:
    in_other_processes("kill", tmp_path)
    undisturbed = worker.tree_model()
    train(undisturbed, worker.RECIPE, worker.Pictures(), directory=tmp_path / "undisturbed")
    for name in worker.KILLS:
        data = worker.Pictures()
        resumed = train(worker.tree_model(), worker.RECIPE, data, directory=tmp_path / name)
        assert len(data.seen) < 20, name  # it did go on from a saved state
        for key, value in undisturbed.state_dict().items():
            assert torch.equal(resumed.state_dict()[key], value), (name, key)
        assert (tmp_path / name / "log.csv").read_bytes() == (tmp_path / "undisturbed" / "log.csv").read_bytes(), name
        assert [row["step"] for row in _log(tmp_path / name)] == list(range(1, 11))


def test_two_processes_compute_what_one_does_with_two_micro_batches(
    worker: ModuleType, in_other_processes: InOtherProcesses, tmp_path: Path
) -> None:
    in_other_processes("pair", tmp_path)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for name, (method, space) in worker.METHODS.items():
        recipe, model = replace(worker.RECIPE, method=method, space=space, steps=4), worker.tree_model(space)
        train(model, recipe, worker.Pictures(), directory=tmp_path / "one" / name)
        for key, value in model.state_dict().items():
            assert torch.equal(ranks[0][name][key], ranks[1][name][key]), (name, key)
            torch.testing.assert_close(ranks[0][name][key], value, rtol=0, atol=1e-6, msg=f"{name} {key}")
        for ours, theirs in zip(_log(tmp_path / name), _log(tmp_path / "one" / name), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6), name
    # One of them was told to stop after its third step, one met a loss that was not finite: both ended, together.
    assert ranks[0]["stopped"] == ranks[1]["stopped"] == [1, 2, 3]
    assert [row["step"] for row in _log(tmp_path / "stopped")] == [1, 2, 3]
    assert ranks[0]["spoilt"] == ranks[1]["spoilt"]
    assert "was not finite at step 2;" in ranks[0]["spoilt"]
