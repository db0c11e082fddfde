"""What the checks are made of, against closed forms and counts by hand."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from robustree.attacks import APGD, PGD, AutoAttack, Expectation, Square
from robustree.auditing.audit import Subject
from robustree.auditing.checks.attacked import attacked, doubled, keeps_last
from robustree.auditing.checks.case import Case, Level, checked_levels, listed
from robustree.auditing.checks.catalogue import PLANTED, allowed
from robustree.auditing.checks.gradients import gaps, interrupted
from robustree.auditing.checks.planted import plant
from robustree.auditing.checks.rows import counted
from robustree.auditing.checks.watch import computes_gradients, untouched
from robustree.auditing.plan import LevelAttack
from robustree.geometry import Sphere
from robustree.taxonomy import Forest

from .faults import Idle, before, counting, purify
from .toy import BUDGET, FOREST, PLAN, draw_images, make_model


@pytest.fixture(scope="module")
def case() -> Case:
    images = draw_images(120, seed=2).subset(36)
    levels = checked_levels(FOREST, PLAN, BUDGET)
    return Case(Subject("toy", make_model(Sphere())), images, FOREST, PLAN, BUDGET, levels)


def test_levels_are_the_leaves_and_the_coarsest_of_the_first_tree(two_trees: Forest) -> None:
    assert [v.label for v in checked_levels(two_trees, PLAN, BUDGET)] == ["leaf", "kind/2"]
    summed = replace(PLAN, readouts=("summed", "via_leaf"))
    assert [v.label for v in checked_levels(two_trees, summed, BUDGET)] == ["leaf", "kind/2:summed"]
    every = [v.label for v in checked_levels(two_trees, PLAN, replace(BUDGET, every_level=True))]
    assert every == ["leaf", "kind/1", "kind/2", "home/1", "home/2", "home/3"]


def test_rules_tolerate_one_image_or_a_share() -> None:
    assert [allowed(0.005, n) for n in (10, 48, 399, 400, 1000)] == [1, 1, 1, 2, 5]


def test_longer_attacks_have_twice_the_steps_or_queries() -> None:
    def longer(attack: Any, loss: Any = "margin", *, whole: bool = False) -> Any:
        return doubled(LevelAttack(attack, loss), whole=whole)

    assert longer(PGD(steps=7)) == (PGD(steps=14, stop=True), "margin")
    assert longer(Square(queries=9)) == (Square(queries=18, stop=True), "margin")
    assert longer(Expectation(APGD(steps=5))) == (Expectation(APGD(steps=10, stop=True)), "margin")
    cascade = AutoAttack(version="fast", steps=8)
    assert longer(cascade, None) == (APGD(steps=16, stop=True), "cross_entropy")
    assert longer(cascade, None, whole=True) == (replace(cascade, steps=16, queries=10_000, optimism=None), None)
    assert longer(Square(queries=9, stop=True, optimism=3.0)) == (Square(queries=18, stop=True), "margin")
    assert longer(Idle()) is None


def test_attacks_that_keep_the_last_iterate_are_found_inside_others() -> None:
    assert keeps_last(Expectation(PGD(best=False)))
    assert not keeps_last(Expectation(PGD()))
    assert not keeps_last(AutoAttack())


def test_a_planted_image_lies_at_the_end_of_the_way(case: Case) -> None:
    """0 at the clean image, 1 at the planted one, which lies at the threat's edge; less the height."""
    objective, index = plant(case)
    assert len(index) == 36
    torch.testing.assert_close(objective(case.clean), torch.full((36,), -PLANTED))
    sign = case.noise("planted", case.levels[0], case.every).uniform(0, case.pixels.shape[1:], torch.float32) - 0.5
    target = (case.pixels + PLAN.threat.eps * sign.sign()).clamp(0, 1)
    torch.testing.assert_close(objective(case.scores(target)), torch.full((36,), 1 - PLANTED), atol=1e-4, rtol=0)
    assert bool((objective.lead(case.scores(target)) > 0).all())


def test_a_watch_sees_what_the_attack_sees(case: Case) -> None:
    """The highest margin on the way is the margin of the image that a best-keeping attack returns."""
    level = case.levels[0]
    (made,) = attacked(replace(case, plan=replace(PLAN, attacks=(LevelAttack(PGD(steps=6)),))), level).made
    returned = (case.margin(case.scores(made.images), level) / made.watch.spread).tolist()
    assert [len(trace) for trace in made.watch.traces] == [7] * 36
    assert [max(trace) for trace in made.watch.traces] == pytest.approx(returned, abs=1e-5)
    met, _ = made.watch.fallen()
    assert torch.equal(met, made.falls)


def test_gaps_are_shares_of_images(case: Case) -> None:
    def half(x: torch.Tensor) -> Any:
        """Images on the left of the batch lose their gradients."""
        left = (torch.arange(len(x)) < len(x) // 2).view(-1, 1, 1, 1)
        return case.predict(torch.where(left, x.detach(), x))

    rows = gaps(case, half, case.every)
    assert [(gap.zero, gap.broken) for gap in rows] == [(0.5, 0.0)] * 4
    assert interrupted(case, case.predict) is None


def test_models_come_out_as_they_went_in() -> None:
    model = counting(make_model(Sphere()))
    with untouched(model) as snapshot:
        model.train()
        model(torch.rand(2, 3, 8, 8))
        model.text_projection.weight.data += 1
        assert snapshot.changed() == ["text_projection.weight", "image_encoder.calls"]
    assert snapshot.changed() == []
    assert not model.training


def test_gradients_inside_a_forward_are_noticed() -> None:
    images = torch.rand(1, 3, 8, 8)
    assert not computes_gradients(make_model(Sphere()), images)
    assert computes_gradients(before(make_model(Sphere()), purify), images)


def test_rows_are_counted_by_hand(tiny_rows: list[dict[str, Any]], tiny_forest: Forest) -> None:
    """The rows of tests/auditing/conftest.py: model a is right about 3 leaves, and keeps 1 under attack."""
    images = [f"i{number}" for number in range(4)]
    counts = counted(tiny_rows, images, tiny_forest)
    assert counts["a", "cosine", "leaf"] == (3, 1, 4)
    assert counts["a", "cosine", "kind/1"] == (4, 2, 4)
    assert counts["b", "cosine", "leaf"] == (4, 3, 4)
    assert counted(tiny_rows[::-1], images, tiny_forest) == counts
    tiny_rows[4]["valid"] = tiny_rows[6]["valid"] = False
    assert counted(tiny_rows, images, tiny_forest)["a", "cosine", "leaf"] == (3, 2, 4)


def test_sentences_name_five_images() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"
    assert Level(FOREST.leaf_cut, "direct").label == "leaf"


def test_reports_read_checks_without_torch() -> None:
    code = "import sys, robustree.auditing.checks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
