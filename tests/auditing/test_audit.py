"""Audits: every row says what the model really does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robustree.attacks import PGD, AutoAttack, ImageNoise, LowPrecision, Transfer
from robustree.auditing.audit import Subject, depth_spearman
from robustree.auditing.plan import LevelAttack, Plan, described, level_objective
from robustree.auditing.rows import HEADER
from robustree.checkpoint import weights_digest
from robustree.data import AuditImages
from robustree.geometry import Euclidean, Poincare, Sphere
from robustree.taxonomy import Forest
from robustree.tree_model import TreeModel

from .audited import CLEAN, EPS, PLAN, Row, key_of, margin, true_of

MakeModel = Callable[..., TreeModel]


def test_every_image_model_head_attack_and_level_has_one_row(
    run: Callable[..., list[Row]], images: AuditImages, two_trees: Forest
) -> None:
    rows = run()
    labels = ["leaf", "kind/1", "kind/2", "home/1", "home/2", "home/3"]
    assert [cut.label for cut in two_trees.cuts()] == labels
    attacks = [("clean", "")]
    attacks += [(f"pgd-3-{loss}", label) for loss in ("margin", "cross_entropy") for label in labels]
    attacks += [("pgd-3-cross_entropy", "all")]
    expected = {
        (image, model, head, attack, attacked)
        for image in images.ids
        for model, head in (("first", "cosine"), ("first", "hyperbolic"), ("second", "cosine"))
        for attack, attacked in attacks
    }
    assert len(rows) == len(expected) == 10 * 3 * 14
    assert {key_of(row) for row in rows} == expected
    for row in rows:
        assert row["leaf"] == images.leaves[images.ids.index(row["image"])]
        assert list(row["direct"]) == list(row["summed"]) == labels


def test_clean_rows_are_an_independent_reading_of_the_model(
    run: Callable[..., list[Row]], subjects: list[Subject], images: AuditImages, two_trees: Forest
) -> None:
    """Distances by geodesic formulae of NumPy, one image at a time."""
    rows = {key_of(row): row for row in run(plan=CLEAN)}
    for subject in subjects:
        model = subject.model
        with torch.no_grad():
            texts = model.prototypes().double().numpy()
        for number, image in enumerate(images.ids):
            with torch.no_grad():
                point = model.image_points(images.pixels[number : number + 1]).double().numpy()[0]
            logits = -model.head.scale * np.array([_distance(model, point, text) for text in texts])
            row = rows[image, subject.name, subject.head, "clean", ""]
            for cut in two_trees.cuts():
                assert row["direct"][cut.label] == int(np.argmax(logits[list(cut.nodes)])), (subject, image, cut.label)
                mass = np.zeros(len(cut.nodes))
                np.add.at(mass, list(cut.of_leaf), np.exp(logits[:9] - logits[:9].max()))
                assert row["summed"][cut.label] == int(np.argmax(mass)), (subject, image, cut.label)
            assert row["distance"] == 0.0
            assert row["valid"] is True


def _distance(model: TreeModel, v: np.ndarray, w: np.ndarray) -> float:
    if isinstance(model.head.space, Sphere):
        return float(1 - v @ w / np.linalg.norm(v) / np.linalg.norm(w))
    r = model.head.space.curvature  # type: ignore[union-attr]
    x, y = (np.tanh(r**0.5 * np.linalg.norm(u)) * u / np.linalg.norm(u) / r**0.5 for u in (v, w))
    ratio = 2 * r * ((x - y) @ (x - y)) / (1 - r * (x @ x)) / (1 - r * (y @ y))
    return float(np.arccosh(1 + ratio) / r**0.5)


def test_attacked_rows_stay_inside_the_threat_and_harm_the_attacked_level(
    run: Callable[..., list[Row]], two_trees: Forest
) -> None:
    rows = run()
    clean = {(row["image"], row["model"], row["head"]): row for row in rows if row["attack"] == "clean"}
    fallen = 0
    for row in rows:
        if row["attack"] == "clean":
            continue
        assert row["valid"] is True
        assert 0 <= row["distance"] <= EPS + 1e-6
        if "margin" in row["attack"]:
            label = row["attacked"]
            before = clean[row["image"], row["model"], row["head"]]["direct"][label] == true_of(row, two_trees, label)
            after = row["direct"][label] == true_of(row, two_trees, label)
            fallen += before and not after
    assert fallen > 20


@pytest.mark.parametrize("head", [Sphere(), Poincare(), Euclidean()])
def test_no_image_is_right_under_attack_that_was_wrong_before(
    run: Callable[..., list[Row]], make_tree_model: MakeModel, two_trees: Forest, head: Any
) -> None:
    """True of an attack that starts at the image itself and keeps the best iterate."""
    attack = PGD(steps=3, random_start=False)
    subject = Subject("one", make_tree_model(head).requires_grad_(False))
    rows = run(subjects=[subject], plan=replace(margin(attack), readouts=("direct", "summed")))
    clean = {row["image"]: row for row in rows if row["attack"] == "clean"}
    for row in rows:
        label, _, readout = row["attacked"].partition(":")
        if label not in ("", "all"):
            truth = true_of(row, two_trees, label)
            robust, before = (r[readout or "direct"][label] == truth for r in (row, clean[row["image"]]))
            assert robust <= before


def test_an_attack_is_at_least_as_harmful_as_noise_at_every_level(
    subjects: list[Subject], run: Callable[..., list[Row]], images: AuditImages, two_trees: Forest
) -> None:
    rows = run(subjects=subjects[:1], plan=margin(PGD(steps=10)))
    noisy = PLAN.threat.random_start(images.pixels, ImageNoise(torch.arange(len(images.pixels))), 0)
    with torch.no_grad():
        scores = subjects[0].model(noisy)
    for cut in two_trees.cuts():
        noise = (scores.at(cut).argmax(1) == torch.tensor(cut.of_leaf)[images.leaves]).sum()
        attacked = [row for row in rows if row["attacked"] == cut.label and "margin" in row["attack"]]
        robust = sum(row["direct"][cut.label] == true_of(row, two_trees, cut.label) for row in attacked)
        assert robust <= noise
        assert robust < 7 or cut.level > 0


def test_stopping_early_changes_no_decision_about_the_attacked_level(
    run: Callable[..., list[Row]], two_trees: Forest
) -> None:
    plan = replace(margin(PGD(steps=3)), all_levels=None)
    whole = {key_of(row): row for row in run("whole", plan=plan)}
    for row in run("stopped", plan=replace(plan, stop=True)):
        if row["attacked"]:
            label = row["attacked"]
            truth = true_of(row, two_trees, label)
            assert (row["direct"][label] == truth) == (whole[key_of(row)]["direct"][label] == truth)


@dataclass(frozen=True, kw_only=True)
class _Cheating(PGD):
    """Leaves the threat: on every second image by brightness, on none else."""

    def __call__(self, f: Any, images: Tensor, *rest: Any, **named: Any) -> Tensor:
        made = super().__call__(f, images, *rest, **named)
        made[::2] = (images[::2] + 2 * EPS).clamp(max=2.0)
        return made


def test_an_attack_that_leaves_the_threat_is_reported(run: Callable[..., list[Row]], images: AuditImages) -> None:
    for row in run(plan=replace(margin(_Cheating(steps=1)), all_levels=_Cheating(steps=1))):
        number = images.ids.index(row["image"])
        honest = row["attack"] == "clean" or number % 2
        assert row["valid"] is bool(honest)
        assert (row["distance"] <= EPS + 1e-6) == bool(honest)


def test_a_model_over_another_forest(
    run: Callable[..., list[Row]], make_tree_model: MakeModel, two_trees: Forest, tmp_path: Path
) -> None:
    other = Subject("other", make_tree_model(Sphere(), forest=two_trees.select(["kind"])).requires_grad_(False))
    with pytest.raises(ValueError) as caught:
        run(subjects=[other])
    assert str(caught.value) == "the model 'other' was built over another forest: load it with the audit's trees."
    assert not (tmp_path / "audit").exists()


def test_two_models_of_one_name(run: Callable[..., list[Row]], subjects: list[Subject]) -> None:
    with pytest.raises(ValueError) as caught:
        run(subjects=[subjects[0], Subject("first", subjects[2].model)])
    assert str(caught.value) == "two models are named 'first' with the cosine head: give each its own name."


def test_weights_that_are_not_finite(run: Callable[..., list[Row]], subjects: list[Subject]) -> None:
    next(subjects[0].model.image_encoder.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError) as caught:
        run()
    assert str(caught.value) == (
        "the model 'first' gave scores that are not finite (clean images); rows "
        "written so far are kept: check its weights."
    )


def test_a_model_that_still_needs_gradients(run: Callable[..., list[Row]], make_tree_model: MakeModel) -> None:
    trained = make_tree_model(Sphere())
    trained.image_encoder.requires_grad_(True)
    with pytest.raises(ValueError, match=r"has parameters that need gradients: call requires_grad_\(False\) first"):
        run(subjects=[Subject("trained", trained)])


def test_a_cascade_says_which_stage_broke_each_image(run: Callable[..., list[Row]], two_trees: Forest) -> None:
    cascade = AutoAttack(version="standard", steps=5, queries=20)
    rows = run(plan=Plan(threat=PLAN.threat, attacks=(LevelAttack(cascade, None),), all_levels=None, batch_size=4))
    clean = {(row["image"], row["model"], row["head"]): row for row in rows if row["attack"] == "clean"}
    stages = set()
    for row in rows:
        if row["attacked"]:
            truth = true_of(row, two_trees, row["attacked"])
            before = clean[row["image"], row["model"], row["head"]]["direct"][row["attacked"]] == truth
            after = row["direct"][row["attacked"]] == truth
            assert ("broken_by" in row) == (before and not after)
            stages.add(row.get("broken_by"))
    assert "apgd-ce" in stages and stages <= {None, "apgd-ce", "apgd-t", "fab-t", "square"}


def test_plans_that_make_no_sense(two_trees: Forest) -> None:
    with pytest.raises(ValueError, match="readout is 'guess'; direct, via_leaf, summed are the readouts"):
        replace(PLAN, readouts=("guess",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"returns its last iterate; audits need the best one: set best=True\."):
        LevelAttack(PGD(best=False))
    with pytest.raises(ValueError, match=r"returns its last iterate; audits need the best: set best=True\."):
        replace(PLAN, all_levels=PGD(best=False))
    with pytest.raises(ValueError, match=r"the attacks are pgd-20-margin, pgd-20-margin; name none twice\."):
        replace(PLAN, attacks=(LevelAttack(PGD()), LevelAttack(PGD(step_size=0.5))))
    for size in (0, -3):
        with pytest.raises(ValueError, match=rf"^batch_size is {size}; it counts from 1: give a positive number\.$"):
            replace(PLAN, batch_size=size)
    with pytest.raises(ValueError, match=r"^attacks and all_levels have pgd-3-cross_entropy with different settings"):
        replace(PLAN, all_levels=PGD(steps=3, step_size=0.5))
    for attack, loss in ((AutoAttack(), "margin"), (PGD(), None)):
        with pytest.raises(ValueError, match=r"cascades have none, all others need one\."):
            LevelAttack(attack, loss)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is no cut 'kind/9' in this forest"):
        level_objective(two_trees, torch.zeros(1, dtype=torch.long), "kind/9", "margin")


def test_every_readout_has_a_label_and_the_leaf_level_only_one(run: Callable[..., list[Row]]) -> None:
    plan = replace(margin(PGD(steps=1)), readouts=("direct", "via_leaf", "summed"))
    labels = {row["attacked"] for row in run(plan=plan)}
    levels = {"kind/1", "kind/2", "home/1", "home/2", "home/3"}
    assert labels == {"", "leaf", "all"} | levels | {f"{n}:via_leaf" for n in levels} | {f"{n}:summed" for n in levels}


def _average_ranks(values: np.ndarray) -> np.ndarray:
    order = np.sort(values)
    return np.array([np.mean(np.flatnonzero(order == value)) for value in values])


@pytest.mark.parametrize("space", [Poincare(), Euclidean()])
def test_the_depth_correlation_is_spearmans(make_tree_model: MakeModel, two_trees: Forest, space: Any) -> None:
    """Depth by hand: leaves 0, level l of L at -l / (L + 1), a node at its finest level."""
    model = make_tree_model(space)
    assert (depth_spearman(model) or 0) > 0.9  # the ladder of norms that a head starts with
    with torch.no_grad():  # training moves every norm
        model.text_projection.weight.add_(torch.randn(8, 12, generator=torch.Generator().manual_seed(0)) / 4)
    by_name = {"mammal": -1 / 3, "bird": -1 / 3, "baked": -1 / 3, "fruit": -1 / 3, "animal": -2 / 3, "food": -2 / 3}
    home = two_trees.tree("home")
    for number in (3, 2, 1):
        by_name |= {two_trees.names[node]: -number / 4 for node in home.levels[number - 1] if node >= 9}
    depths = np.array([by_name.get(name, 0.0) for name in two_trees.names])
    with torch.no_grad():
        norms = np.linalg.norm(model.prototypes().double().numpy(), axis=1)
    x, y = _average_ranks(depths), _average_ranks(norms)
    expected = ((x - x.mean()) * (y - y.mean())).mean() / x.std() / y.std()
    assert len(set(norms.round(5))) == len(norms)
    assert depth_spearman(model) == pytest.approx(expected, abs=1e-9)


def test_the_depth_correlation_turns_with_the_norms(make_tree_model: MakeModel) -> None:
    """A head whose norms were put the wrong way round."""
    model = make_tree_model(Poincare())
    ladder = depth_spearman(model)
    assert ladder is not None
    model.radii = 1 / model.radii
    turned = depth_spearman(model)
    assert turned is not None
    assert turned < -0.9 < 0.9 < ladder


def test_norms_mean_nothing_on_the_sphere(
    make_tree_model: MakeModel, run: Callable[..., list[Row]], tmp_path: Path
) -> None:
    assert depth_spearman(make_tree_model(Sphere())) is None
    run(plan=CLEAN)
    assert set(json.loads((tmp_path / "audit" / HEADER).read_text())["spearman"]) == {"first/hyperbolic"}


def test_attacks_are_described_in_json(subjects: list[Subject]) -> None:
    nested = LevelAttack(LowPrecision(PGD(steps=3), dtype=torch.bfloat16), "ratio")
    found = json.loads(json.dumps(described(nested)))
    assert found["loss"] == "ratio" and found["attack"]["kind"] == "LowPrecision"
    assert found["attack"]["dtype"] == "torch.bfloat16" and found["attack"]["attack"]["steps"] == 3
    transferred = described(Transfer(attack=PGD(), sources=(subjects[0].model,), name="from-first"))
    assert transferred["sources"] == [weights_digest(subjects[0].model)] and transferred["name"] == "from-first"
    cascade = json.loads(json.dumps(described(LevelAttack(AutoAttack(version="fast"), None))))
    assert cascade["attack"]["targets"] == 9
