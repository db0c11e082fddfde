"""An audit of any number of images holds a few batches of pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.attacks import PGD, AutoAttack
from robustree.auditing.audit import CHUNK, Subject, audit
from robustree.auditing.checks import data as data_checks
from robustree.auditing.exhibits import make_exhibits
from robustree.auditing.plan import LevelAttack, Plan
from robustree.data import AuditImages
from robustree.geometry import Sphere
from robustree.taxonomy import Forest
from robustree.tree_model import TreeModel

from .audited import PLAN

SMALL = Plan(threat=PLAN.threat, attacks=(LevelAttack(PGD(steps=1)),), all_levels=None, batch_size=8, stop=True)


class Watched:
    """Pixels that note the most images that were asked for at a time, and how many in all."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels, self.most, self.total = pixels, 0, 0

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        found = self.pixels[index]
        self.most, self.total = max(self.most, len(found)), self.total + len(found)
        return found


@pytest.mark.parametrize("count", [70, 350])
def test_an_audit_holds_as_many_images_of_a_large_set_as_of_a_small_one(
    count: int, make_tree_model: Callable[..., TreeModel], two_trees: Forest, tmp_path: Path
) -> None:
    """The audit a chunk of batches, the exhibits one image, the checks of all images their batch."""
    watched = Watched(torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    leaves = torch.arange(count) % two_trees.leaf_count
    images = AuditImages(watched, leaves, tuple(f"{k:04d}" for k in range(count)))
    subjects = [Subject("a", make_tree_model(Sphere()).requires_grad_(False))]
    audit(subjects, images, two_trees, SMALL, tmp_path, command="")
    assert watched.most == SMALL.batch_size * CHUNK
    assert watched.total == count * len(list(SMALL.runs(two_trees)))
    watched.most = 0
    make_exhibits(subjects, images, two_trees, SMALL, tmp_path, 2)
    assert watched.most == 1
    assert data_checks.pixels(images).status == "pass"
    assert data_checks.pictures(images, two_trees, ()).status == "pass"
    assert watched.most == min(count, data_checks.BATCH)


def test_levels_that_share_their_images_hold_those_of_one_chunk(
    make_tree_model: Callable[..., TreeModel], two_trees: Forest, tmp_path: Path
) -> None:
    cascade = LevelAttack(AutoAttack(version="fast", steps=1, targets=1), None)
    plan = replace(SMALL, attacks=(cascade,), share=True)
    watched = Watched(torch.rand(70, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    images = AuditImages(watched, torch.arange(70) % two_trees.leaf_count, tuple(f"{k:04d}" for k in range(70)))
    audit(
        [Subject("a", make_tree_model(Sphere()).requires_grad_(False))], images, two_trees, plan, tmp_path, command=""
    )
    assert (watched.most, watched.total) == (plan.batch_size * CHUNK, 2 * 70)  # clean, and all levels at once


def test_rows_do_not_depend_on_where_the_pixels_are(
    run: Callable[..., list[dict[str, Any]]], images: AuditImages
) -> None:
    assert run("a") == run("b", images=replace(images, pixels=Watched(images.pixels[:])))
