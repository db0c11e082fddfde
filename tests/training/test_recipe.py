from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from robustree.geometry import Poincare
from robustree.methods import Hierarchical, TeCoA
from robustree.training import Recipe, hierarchical_recipe, loop, recipe_record
from robustree.tree_model import TreeModel


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    recipe = Recipe(method=TeCoA(), steps=20, warmup=0.25, lr=0.4)
    assert [recipe.learning_rate(step) for step in range(5)] == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4])
    falling = [recipe.learning_rate(step) for step in range(5, 21)]
    assert falling == pytest.approx([0.2 * (1 + math.cos(math.pi * k / 15)) for k in range(16)])
    assert falling[0] == pytest.approx(0.4)
    assert falling[-1] == pytest.approx(0.0)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 0.9), (2, 0.5), (150, 0.1), (7, 0.99)])
def test_every_learning_rate_is_positive_and_at_most_lr(steps: int, warmup: float) -> None:
    recipe = Recipe(method=TeCoA(), steps=steps, warmup=warmup, lr=0.1)
    rates = [recipe.learning_rate(step) for step in range(steps)]
    assert all(0 < rate <= 0.1 for rate in rates)
    assert max(rates) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0; it counts from 1: give a positive number."),
        ({"batch_size": 0}, "batch_size is 0; it counts from 1: give a positive number."),
        ({"batch_size": 6, "micro_batches": 4}, "batch_size 6 is not a multiple of micro_batches 4: choose a divisor."),
        (
            {"lr": math.nan},
            "lr nan, weight_decay 0.0001, warmup 0.1: "
            "lr must be positive, weight_decay at least 0 and warmup in [0, 1).",
        ),
        (
            {"warmup": 1.0},
            "lr 1e-05, weight_decay 0.0001, warmup 1.0: "
            "lr must be positive, weight_decay at least 0 and warmup in [0, 1).",
        ),
    ],
)
def test_a_recipe_that_makes_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Recipe(method=TeCoA(), **changes)
    assert str(caught.value) == message


def test_a_recipe_becomes_a_record_that_names_its_parts() -> None:
    record = recipe_record(hierarchical_recipe(steps=3))
    assert record["method"]["kind"] == "Hierarchical"
    assert record["method"]["vic"] == Hierarchical().vic
    assert record["space"] == {"kind": "poincare", "curvature": Poincare().curvature}
    assert record["steps"] == 3
    assert record["attack"]["steps"] == 3


def test_the_text_projection_learns_at_its_own_rate(make_tree_model: Callable[..., TreeModel]) -> None:
    model = make_tree_model(Poincare())
    loop.select_trained(model, text=True)
    groups = loop.adamw(model, hierarchical_recipe(text_lr=0.25)).param_groups
    assert [group["factor"] for group in groups] == [1.0, 0.25]
    assert [len(group["params"]) for group in groups] == [len(list(model.image_encoder.parameters())), 1]
    loop.select_trained(model, text=False)
    assert len(loop.adamw(model, hierarchical_recipe()).param_groups) == 1
