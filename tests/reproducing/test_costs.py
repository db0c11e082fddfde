"""Estimates against closed forms, and what a place or a machine lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robustree.attacks import PGD
from robustree.auditing.plan import LevelAttack
from robustree.data import CATALOG
from robustree.reproducing import EMBEDDED, PAPER, TABLES, Evaluation
from robustree.reproducing.costs import Cost, Speed, audit_cost, given_speed, hardening_cost, measure_speed, total
from robustree.reproducing.counting import Footprint, footprint
from robustree.reproducing.jobs import jobs_of, lacks_of
from robustree.reproducing.place import Machine, Place

COUNTED = Footprint(
    forward=1e6, image_gradient=1e6, weight_gradient=2e6, activations=1e7, encoder=1_000_000, model=1_500_000
)
SPEED = Speed(flops=9e9, seconds=1.0, images=1, what="")  # a thousand images of TeCoA a second
TECOA = TABLES["components"].rows[0].candidate
PER_LEVEL = TABLES["perturbation"].rows[1].candidate
PGD_20 = Evaluation(attack="PGD-20")


def test_hardening_takes_its_images_at_the_measured_speed() -> None:
    recipe, forest = EMBEDDED.recipe(TECOA), EMBEDDED.forest(TECOA)
    cost = hardening_cost(replace(recipe, steps=3600, batch_size=1000), forest, COUNTED, SPEED)
    assert cost.flops == 3600 * 1000 * 9e6
    assert cost.hours == pytest.approx(1.0, rel=1e-3)  # but for the saves
    assert cost.disk == 2 * 12 * 1e6 + 4 * 1.5e6
    assert cost.memory == 1000 * 1e7 + 4 * (5 * 1e6 + 1.5e6)
    parts = hardening_cost(replace(recipe, steps=3600, batch_size=1000, micro_batches=10), forest, COUNTED, SPEED)
    assert cost.memory - parts.memory == 900 * 1e7
    assert parts.flops == cost.flops


def test_one_attack_a_level_costs_the_levels() -> None:
    one, each = (
        hardening_cost(EMBEDDED.recipe(candidate), EMBEDDED.forest(candidate), COUNTED, SPEED)
        for candidate in (TECOA, PER_LEVEL)
    )
    assert each.flops == 4 * one.flops  # the leaf and three levels of WordNet
    assert each.memory == one.memory


def test_an_audit_takes_its_looks_at_every_level() -> None:
    """PGD-20 looks 21 times, then the image is judged; with the clean image once."""
    record = CATALOG["emoji"]
    cost = audit_cost(EMBEDDED, PGD_20, record, COUNTED, SPEED)
    assert cost.flops == 131 * (1 + 12 * (22 + 21)) * 1e6
    assert cost.hours == pytest.approx(cost.flops / 9e9 / 3600)
    assert cost.disk == 0
    pets = audit_cost(PAPER, PGD_20, CATALOG["pets"], COUNTED, SPEED)
    assert pets.flops == 3669 * (1 + 22 + 21) * 1e6  # the leaf alone, all images
    few = audit_cost(replace(PAPER, images=100), PGD_20, CATALOG["pets"], COUNTED, SPEED)
    assert few.flops / pets.flops == pytest.approx(100 / 3669)


def test_parts_follow_each_other() -> None:
    first, second = Cost(flops=1, hours=2, memory=3, disk=4), Cost(flops=10, hours=20, memory=2, disk=40)
    assert total([first, second]) == Cost(flops=11, hours=22, memory=3, disk=44)


def test_the_speed_is_the_work_over_its_time() -> None:
    recipe, forest = EMBEDDED.recipe(TECOA), EMBEDDED.forest(TECOA)
    given = given_speed(2.0, COUNTED, recipe, forest, what="")
    assert (given.flops, given.images) == (64 * 9e6 / 2.0, 64)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = {"vision_config": tower | {"image_size": 8, "patch_size": 4}, "text_config": tower, "projection_dim": 8}
    counted = footprint(config)
    small = replace(recipe, batch_size=4)
    measured = measure_speed(config, counted, small, forest, torch.device("cpu"), what="tiny")
    assert measured.images == 4
    work = 4 * (4 * counted.forward + 3 * counted.image_gradient + counted.weight_gradient)
    assert measured.flops * measured.seconds == pytest.approx(work)


def _place(root: Path | None, tmp_path: Path, **changes: Any) -> Place:
    return Place(scale=replace(PAPER, **changes), directory=tmp_path / "out", data_root=root)


def test_files_for_audits_go_before_folders_for_training(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "imagenet").mkdir(parents=True)
    (root / "imagenet" / "train-00000.parquet").touch()
    place = _place(root, tmp_path)
    assert place.training() == f"imagenet={root / 'imagenet'}"
    assert place.audited("imagenet") is None  # its folder holds training images only
    (root / "imagenet.tar").touch()
    assert place.audited("imagenet") == f"imagenet={root / 'imagenet.tar'}"
    (root / "pets" / "a dog").mkdir(parents=True)
    assert place.audited("pets") == f"pets={root / 'pets'}"
    assert place.audited("cifar10") is None


def test_an_audits_images_are_never_trained_on(tmp_path: Path) -> None:
    (tmp_path / "imagenet" / "tench").mkdir(parents=True)
    assert _place(tmp_path, tmp_path).training() is None
    (tmp_path / "imagenet.tar").touch()
    assert _place(tmp_path, tmp_path).training() is None


def test_what_lacks_comes_with_what_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustree.models.loading.is_cached", lambda name: False)
    place = _place(None, tmp_path)
    lacks = lacks_of(jobs_of(TABLES["main"], place))
    assert lacks[0].startswith("the model: openai/clip-vit-base-patch32 is not in the hub's cache; add --fetch")
    assert lacks[1].startswith("the training images: 1,281,167, about 128 GB, in a folder ROOT/imagenet of files")
    assert lacks[2] == "robustree data fetch cifar10 --output ROOT/cifar10.tar --images 10000"
    assert len(lacks) == 2 + 15
    (job, *_) = jobs_of(TABLES["main"], place)
    assert job.state == "lacks the model, 15 of 15 data sets"
    fetching = replace(place, fetch=True)
    assert jobs_of(TABLES["main"], fetching)[0].lacks == ()
    (backbone,) = {lack for lack in lacks_of(jobs_of(TABLES["backbones"], place)) if "RN50" in lack}
    assert "pip install 'robustree[open_clip]'" in backbone or "--model RN50=DIRECTORY" in backbone


def test_a_scale_without_a_backbone_says_so(tmp_path: Path) -> None:
    place = Place(scale=EMBEDDED, directory=tmp_path, data_root=None)
    assert lacks_of(jobs_of(TABLES["backbones"], place)) == [
        "a ViT-L/14: the scale embedded has ViT-B/32 only",
        "a RN50: the scale embedded has ViT-B/32 only",
    ]


def test_too_little_memory_or_disk_says_how_much() -> None:
    machine = Machine(device=torch.device("cpu"), memory=2e9, disk=1e9)
    cost = Cost(flops=0, hours=0, memory=12.4e9, disk=2.7e9)
    assert machine.lacks(cost, PAPER.base) == (
        "12.4 GB of memory, and the cpu has 2.0; --micro-batches 2 computes a batch in smaller parts",
        "2.7 GB of disk, and 1.0 are free",
    )
    assert machine.lacks(replace(cost, memory=1e9, disk=1e9), None) == ()


def test_the_attack_of_a_column_is_the_protocols() -> None:
    assert PAPER.attacks["PGD-20"] == LevelAttack(PGD(steps=20, step_size=1.0), "cross_entropy")
    assert PAPER.plan(Evaluation(attack="CW", factor=2.0)).threat.eps == 2 / 255
