"""From a pretrained model to a checkpoint, whatever interrupts it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustree.attacks import PGD
from robustree.checkpoint import MARKER, load_checkpoint
from robustree.data import AuditImages, DataSet
from robustree.geometry import Poincare
from robustree.models import load
from robustree.taxonomy import Forest
from robustree.training import Recipe, harden, hierarchical_recipe, recipe_record
from robustree.tree_model import TreeModel

RECIPE = hierarchical_recipe(
    steps=4, batch_size=4, lr=1e-3, attack=PGD(steps=1, best=False), space=Poincare(curvature=0.5), template="a {}"
)


class _Noise:
    """Twelve random pictures."""

    leaves = torch.arange(12) % 9

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor:
        return torch.rand(len(index), 3, 16, 16, generator=generator)


@pytest.fixture
def run(clip_directory: Path, two_trees: Forest) -> Callable[..., TreeModel]:
    """(directory, recipe, **options): harden the tiny CLIP there."""

    def no_audit(size: int) -> AuditImages:
        raise AssertionError("hardening audits nothing")

    data = DataSet(name="noise", about="", forest=lambda _: two_trees, training=lambda _: _Noise(), audit=no_audit)

    def go(directory: Path, recipe: Recipe = RECIPE, **options: object) -> TreeModel:
        return harden(load(str(clip_directory)), data, two_trees, recipe, directory, **options)  # type: ignore[arg-type]

    return go


def _scores(model: TreeModel) -> Tensor:
    with torch.no_grad():
        return model(torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(9))).nodes


def test_the_directory_holds_the_hardened_model(run: Callable[..., TreeModel], tmp_path: Path) -> None:
    hardened = run(tmp_path)
    read = load_checkpoint(tmp_path)
    assert torch.equal(_scores(read.tree_model), _scores(hardened))
    assert read.template == "a {}"
    assert read.record["recipe"] == recipe_record(RECIPE)
    assert read.record["data"] == "noise"
    assert not any(parameter.requires_grad for parameter in hardened.parameters())
    assert not torch.equal(_scores(hardened), _scores(run(tmp_path / "other", replace(RECIPE, steps=1))))


def test_a_stop_leaves_a_state_and_no_checkpoint_and_the_next_call_ends_as_if_nothing_was(
    run: Callable[..., TreeModel], tmp_path: Path
) -> None:
    steps: list[int] = []
    run(tmp_path / "a", report=lambda progress: steps.append(progress.step), stop=lambda: len(steps) == 2)
    assert not (tmp_path / "a" / MARKER).exists()
    resumed = run(tmp_path / "a", report=lambda progress: steps.append(progress.step))
    assert steps == [1, 2, 3, 4]
    assert (tmp_path / "a" / MARKER).exists()
    assert torch.equal(_scores(resumed), _scores(run(tmp_path / "b")))


def test_a_run_that_died_after_its_last_step_still_becomes_a_checkpoint(
    run: Callable[..., TreeModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[harden.__module__], "save_checkpoint", dying)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert not (tmp_path / MARKER).exists()
    reports: list[object] = []
    hardened = run(tmp_path, report=reports.append)
    assert not reports
    assert torch.equal(_scores(load_checkpoint(tmp_path).tree_model), _scores(hardened))


def test_a_stop_at_the_last_step_is_an_end(run: Callable[..., TreeModel], tmp_path: Path) -> None:
    run(tmp_path, replace(RECIPE, steps=1), stop=lambda: True)
    assert (tmp_path / MARKER).exists()
