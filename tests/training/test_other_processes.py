"""Runs that were killed with SIGKILL, and runs of two processes, equal the run that nobody disturbed."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from robustree.geometry import Sphere
from robustree.training import train

InOtherProcesses = Callable[[str, Path], str]


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


def test_a_run_killed_at_random_moments_ends_in_the_same_files(
    worker: ModuleType, in_other_processes: InOtherProcesses, tmp_path: Path
) -> None:
    """Weights, moments, log: every file to the byte; nothing half-written is left, and no lock."""
    kills = int(in_other_processes("random_kills", tmp_path / "killed").split()[0])
    assert kills >= 20
    train(worker.tree_model(), worker.RECIPE, worker.Pictures(), directory=tmp_path / "undisturbed", save_every=2)
    expected = {path.name: path.read_bytes() for path in (tmp_path / "undisturbed").iterdir()}
    assert len(expected) == 3
    for folder in (tmp_path / "killed").iterdir():
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected


def test_the_death_of_a_process_ends_the_others_and_one_goes_on_where_two_were(
    worker: ModuleType, in_other_processes: InOtherProcesses, tmp_path: Path
) -> None:
    in_other_processes("lost", tmp_path)
    seconds, message = (tmp_path / "said").read_text().splitlines()
    assert float(seconds) < 10
    assert message.startswith("the exchange with the other processes failed, most likely because one of them ended (")
    assert [row["step"] for row in _log(tmp_path / "run")] == [1, 2, 3, 4]
    whole, resumed = worker.Pictures(), worker.Pictures()
    expected, model = worker.tree_model(Sphere()), worker.tree_model(Sphere())
    train(expected, replace(worker.FLAT, micro_batches=2), whole, directory=tmp_path / "undisturbed")
    train(model, worker.FLAT, resumed, directory=tmp_path / "run", save_every=2)
    assert resumed.seen == whole.seen[8:]  # no image lost, none twice
    assert resumed.noise == whole.noise[8:]
    _close(model.state_dict(), expected.state_dict())


def _close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-6, msg=key)


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
        after = ranks[0][f"{name} after each step"]
        assert after == ranks[1][f"{name} after each step"] and len(set(after)) == 4
        for ours, theirs in zip(_log(tmp_path / name), _log(tmp_path / "one" / name), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6), name
    # Through a window each process reads its own piece of the shards: what one process reads in two micro-batches.
    model, data = worker.tree_model(), worker.streamed_pictures(tmp_path / "shards0")
    train(model, replace(worker.RECIPE, window=8), data, directory=tmp_path / "one" / "streamed")
    assert [ranks[chunk]["streamed saw"] for chunk in range(2)] == [data.seen[chunk::2] for chunk in range(2)]
    for rank in ranks:
        _close(rank["streamed"], model.state_dict())
    # One of them was told to stop after its third step, one met a loss that was not finite: both ended, together.
    assert ranks[0]["stopped"] == ranks[1]["stopped"] == [1, 2, 3]
    assert [row["step"] for row in _log(tmp_path / "stopped")] == [1, 2, 3]
    assert ranks[0]["spoilt"] == ranks[1]["spoilt"]
    assert "was not finite at step 2;" in ranks[0]["spoilt"]
    assert ranks[0]["cornered"] == ranks[1]["cornered"]
    assert "gradient norm (nan) was not finite at step 1;" in ranks[0]["cornered"]
    # A run that one process began goes on with two, and a process that runs out of memory halves the parts of both.
    for name, recipe, said in (
        (
            "grown",
            worker.FLAT,
            "batches were divided into 1; for 2 processes they are divided into 2 from here on. Batches",
        ),
        (
            "short",
            replace(worker.FLAT, micro_batches=2),
            "memory ran out at step 3 with micro-batches of 2 images: they",
        ),
    ):
        expected = train(worker.tree_model(Sphere()), recipe, worker.Pictures(), directory=tmp_path / "one" / name)
        assert [message[: len(said)] for message in ranks[0][f"{name} said"]] == [said]
        assert ranks[1][f"{name} said"] == []  # the first process speaks
        for rank in ranks:
            _close(rank[name], expected.state_dict())
