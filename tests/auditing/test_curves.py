"""Curves: known distances to the boundary, shorter searches inside longer ones, and files that survive."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustree.attacks import PGD, AutoAttack, Threat
from robustree.auditing.audit import Status, Subject, image_noise
from robustree.auditing.curve_file import FILE, level_curves
from robustree.auditing.curves import measure_curves, read_curves
from robustree.auditing.plan import LevelAttack, Plan, Run
from robustree.auditing.statistics import wilson
from robustree.data import AuditImages
from robustree.geometry import Poincare, Sphere
from robustree.objectives import Margin
from robustree.taxonomy import Forest, Tree
from robustree.tree_model import Scores, TreeModel

MakeModel = Callable[..., TreeModel]
PLAN = Plan(threat=Threat(eps=8 / 255), attacks=(LevelAttack(PGD(steps=6)),), all_levels=None, batch_size=4, seed=3)
STEPS = (1, 2, 5, 9)


class _Linear(nn.Module):
    """Logits of two leaves, w.x - b and 0."""

    def __init__(self, forest: Forest, weight: Tensor, offset: float):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("text_features", torch.zeros(1))
        self.forest, self.offset = forest, offset
        self.head = SimpleNamespace(space=SimpleNamespace(name="sphere"))

    def forward(self, images: Tensor) -> Scores:
        value = (images * self.weight).flatten(1).sum(1) - self.offset
        nodes = torch.stack([value, torch.zeros_like(value)], 1)
        others = torch.zeros(len(images), len(self.forest.names) - 2).to(nodes)
        return Scores(nodes, nodes, torch.cat([nodes, others], 1))


@pytest.fixture
def images(tiny_images: Callable[[int], Tensor], make_tree_model: MakeModel) -> AuditImages:
    """Ten images labelled by the model's own decisions, three of them wrongly."""
    pixels = tiny_images(10)
    with torch.no_grad():
        leaves = make_tree_model(Sphere())(pixels).nodes[:, :9].argmax(1)
    leaves[:3] = (leaves[:3] + 1) % 9
    return AuditImages(pixels, leaves, tuple(f"noise/{k}" for k in range(10)))


@pytest.fixture
def subjects(make_tree_model: MakeModel) -> list[Subject]:
    return [
        Subject("first", make_tree_model(Sphere()).requires_grad_(False)),
        Subject("first", make_tree_model(Poincare()).requires_grad_(False)),
    ]


@pytest.fixture
def measure(
    subjects: list[Subject], images: AuditImages, two_trees: Forest, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Measure into tmp_path/<name>, with changes."""

    def go(name: str = "audit", **changes: Any) -> dict[str, Any]:
        asked = {"subjects": subjects, "images": images, "forest": two_trees, "plan": PLAN, "steps": STEPS} | changes
        return measure_curves(**asked, directory=tmp_path / name)

    return go


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_model_falls_at_its_distance(norm: Any, tmp_path: Path) -> None:
    """|w.x - b| / |w|_dual is the smallest eps that breaks it; a level of one node never breaks."""
    forest = Forest(("one", "two", "all"), 2, (Tree("tree", (2, 2, -1), ((2, 2),)),))
    weight = torch.linspace(-1, 1, 12).view(3, 2, 2) + 0.05
    dual = float(weight.abs().sum() if norm == "linf" else weight.norm())
    generator = torch.Generator().manual_seed(0)
    pixels = 0.4 + 0.2 * torch.rand(24, 3, 2, 2, generator=generator)
    values = (pixels * weight).flatten(1).sum(1)
    model = _Linear(forest, weight, float(values.median()))
    leaves = (values < model.offset).long()
    leaves[5] = 1 - leaves[5]
    subject = Subject("linear", model)  # type: ignore[arg-type]
    plan = replace(PLAN, threat=Threat(eps=0.04, norm=norm), attacks=(LevelAttack(PGD(steps=40, step_size=0.1)),))
    grid = (0.005, 0.01, 0.02, 0.04, 0.08)
    found = measure_curves(
        [subject], AuditImages(pixels, leaves, tuple(map(str, range(24)))), forest, plan, tmp_path, eps=grid
    )
    fell = found["subjects"][0]["fell"]
    distance = (values - model.offset).abs() / dual
    for number, at in enumerate(fell["leaf"]["eps"]):
        need = 0.0 if number == 5 else next((eps for eps in grid if eps > float(distance[number])), None)
        assert at == need, (number, float(distance[number]))
    assert len(set(fell["leaf"]["eps"])) >= 4
    assert set(fell["tree/1"]["eps"]) == set(fell["tree/1"]["steps"]) == {None}


def test_the_steps_curve_is_that_of_separate_shorter_searches(
    measure: Callable[..., dict[str, Any]], subjects: list[Subject], images: AuditImages, two_trees: Forest
) -> None:
    found = measure()
    fallen = 0
    for subject, entry in zip(subjects, found["subjects"], strict=True):
        for cut in two_trees.cuts():
            truth = torch.tensor(cut.of_leaf)[images.leaves]
            for steps, point in zip(STEPS, entry["levels"][cut.label]["steps"], strict=True):
                noise = image_noise(
                    images.ids, PLAN.seed, Run("curve over steps", cut.label, None), torch.device("cpu")
                )
                search, goal = PGD(steps=steps, stop=True), Margin(cut, images.leaves)
                made = search(subject.model, images.pixels, goal, PLAN.threat, generator=noise)  # type: ignore[arg-type]
                with torch.no_grad():
                    right = subject.model(images.pixels).at(cut).argmax(1) == truth
                    right &= subject.model(made).at(cut).argmax(1) == truth
                assert (point["steps"], point["count"], point["n"]) == (steps, int(right.sum()), 10)
                assert (point["low"], point["high"]) == wilson(point["count"], 10)
            fallen += sum(bool(at) for at in entry["fell"][cut.label]["steps"])
    assert fallen > 5


def test_no_curve_rises_and_each_begins_at_the_clean_accuracy(
    measure: Callable[..., dict[str, Any]], subjects: list[Subject], images: AuditImages, two_trees: Forest
) -> None:
    found = measure()
    for subject, entry in zip(subjects, found["subjects"], strict=True):
        with torch.no_grad():
            scores = subject.model(images.pixels)
        clean = {
            cut.label: (scores.at(cut).argmax(1) == torch.tensor(cut.of_leaf)[images.leaves]).double()
            for cut in two_trees.cuts()
        }
        for label, curve in entry["levels"].items():
            assert curve["eps"][0]["eps"] == 0 and curve["eps"][0]["value"] == float(clean[label].mean())
        mean = entry["means"]["levels"]["eps"][0]
        assert mean["value"] == pytest.approx(float(torch.stack(list(clean.values())).mean()))
        assert mean["low"] <= mean["value"] <= mean["high"]
        for curve in (*entry["levels"].values(), *entry["means"].values()):
            for axis in ("eps", "steps"):
                values = [point["value"] for point in curve[axis]]
                assert values == sorted(values, reverse=True)
    assert [p["eps"] for p in found["subjects"][0]["levels"]["leaf"]["eps"]] == [0, *(k / 255 for k in (1, 2, 4, 8))]
    first = found["subjects"][0]["levels"]["leaf"]["eps"]
    assert first[-1]["value"] < first[0]["value"]


def test_means_over_levels_count_every_level_once() -> None:
    fell = {
        "leaf": {"eps": [0.0, 0.1, None], "steps": [0, 3, None]},
        "a/1": {"eps": [0.2, None, None], "steps": [5, None, None]},
        "b/1": {"eps": [0.0, 0.2, None], "steps": [0, 5, 7]},
    }
    curves = level_curves(fell, {"eps": [0.0, 0.1, 0.2], "steps": [3, 6]})
    assert [point["value"] for point in curves["means"]["levels"]["eps"]] == pytest.approx([7 / 9, 6 / 9, 4 / 9])
    assert [point["value"] for point in curves["means"]["superclasses"]["steps"]] == pytest.approx([5 / 6, 3 / 6])
    assert [point["count"] for point in curves["levels"]["leaf"]["eps"]] == [2, 1, 1]
    alone = level_curves({"leaf": fell["leaf"]}, {"eps": [0.0], "steps": [3]})
    assert alone["means"]["superclasses"] is None


def test_default_grids_and_the_plan_s_own_pgd(measure: Callable[..., dict[str, Any]], subjects: list[Subject]) -> None:
    cascade = (LevelAttack(AutoAttack(version="fast", steps=2), None),)
    plan = replace(PLAN, threat=Threat(eps=3 / 255), attacks=cascade)
    protocol = measure("linf", plan=plan, subjects=subjects[:1], images_count=2)["protocol"]
    assert protocol["eps"] == [0, *(k / 255 for k in (1, 2, 3, 4, 8))] and protocol["attack"]["steps"] == 20
    plan = replace(PLAN, threat=Threat(eps=0.5, norm="l2"))
    protocol = measure("l2", plan=plan, subjects=subjects[:1], images_count=2)["protocol"]
    assert protocol["eps"] == [0, 0.125, 0.25, 0.5, 1.0] and protocol["attack"]["steps"] == 6
    assert protocol["threat"] == {"eps": 0.5, "norm": "l2"}


def test_a_subject_is_measured_once_and_an_interrupted_measurement_goes_on(
    measure: Callable[..., dict[str, Any]], subjects: list[Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure("whole")

    def stop(status: Status) -> None:
        if status.done == 17:  # in the middle of the second subject
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(report=stop)
    assert [entry["head"] for entry in read_curves(tmp_path / "audit")["subjects"]] == ["cosine"]
    seen: list[Status] = []
    assert measure(report=seen.append) == whole
    assert [status.done for status in seen] == list(range(1, 25)) and {status.total for status in seen} == {24}
    assert [status.images for status in seen] == [0] * 12 + [10] * 12
    assert (tmp_path / "audit" / FILE).read_bytes() == (tmp_path / "whole" / FILE).read_bytes()
    monkeypatch.setattr(TreeModel, "forward", None)  # nothing is asked of the models
    assert measure(subjects=subjects[1:]) == whole


def test_curves_use_an_even_subset_and_no_batch_size(measure: Callable[..., dict[str, Any]]) -> None:
    few = measure("few", images_count=4, steps=(2,))
    assert len(few["images"]) == 4
    for size in (1, 64):
        other = measure(f"by {size}", images_count=4, steps=(2,), plan=replace(PLAN, batch_size=size))
        assert other["subjects"] == few["subjects"]


def test_refusals(
    measure: Callable[..., dict[str, Any]], subjects: list[Subject], make_tree_model: MakeModel, tmp_path: Path
) -> None:
    measure(subjects=subjects[:1])
    with pytest.raises(ValueError, match=r"holds curves with another seed \(3\): delete the file, or choose"):
        measure(plan=replace(PLAN, seed=4))
    other = Subject("first", make_tree_model(Sphere(), seed=1).requires_grad_(False))
    with pytest.raises(ValueError, match="holds curves of another model called 'first'"):
        measure(subjects=[other])
    for name, grid in (("eps", (0.2, 0.1)), ("eps", ()), ("steps", (0, 1)), ("steps", (3, 3))):
        with pytest.raises(ValueError, match=rf"the curves' {name} are \[.*\]: give positive numbers in ascending"):
            measure("grids", **{name: grid})
    with pytest.raises(ValueError, match=r"holds no curves\.json: run the audit with --curves"):
        read_curves(tmp_path)
    path = tmp_path / "audit" / FILE
    content = json.loads(path.read_text())
    for broken in ("{", json.dumps(content | {"format": "robustree-curves/9"}), json.dumps(content | {"images": []})):
        path.write_text(broken)
        with pytest.raises(ValueError, match=r"is damaged \(.*\): delete it, and --curves measures it again\."):
            read_curves(tmp_path / "audit")


def test_scores_that_are_not_finite(
    measure: Callable[..., dict[str, Any]], subjects: list[Subject], make_tree_model: MakeModel, tmp_path: Path
) -> None:
    broken = make_tree_model(Sphere(), seed=1).requires_grad_(False)
    next(broken.image_encoder.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match=r"the model 'broken' gave scores that are not finite \(curves at leaf\)"):
        measure(subjects=[subjects[0], Subject("broken", broken)])
    assert [entry["model"] for entry in read_curves(tmp_path / "audit")["subjects"]] == ["first"]
