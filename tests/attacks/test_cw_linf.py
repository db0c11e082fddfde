from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.attacks import CW, PGD, ImageNoise, Threat


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bent(x: Tensor) -> Tensor:
    """A smooth function without a closed form."""
    flat = x.flatten(1)
    return (torch.sin(3 * flat) * flat.roll(1, 1)).sum(1) + flat.square().sum(1)


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (3, 1, 2, 7)])
def test_a_linear_decision_changes_exactly_beyond_its_known_distance(
    shape: tuple[int, ...], make_linear: Callable[..., Any]
) -> None:
    victim = make_linear(shape, "linf", 0.1)
    for radius, succeeds in [(0.099, False), (0.105, True)]:
        threat = Threat(eps=radius)
        made = CW(steps=40, restarts=2)(victim, victim.images, victim.objective, threat, generator=fresh())
        assert (victim.objective(victim(made)) > 0).tolist() == [succeeds] * len(made)
        assert threat.contains(made, victim.images, tolerance=1e-12).all()


def test_the_steps_are_those_of_pgd_until_the_confidence_is_passed(make_linear: Callable[..., Any]) -> None:
    images = torch.rand(4, 3, 3, 5, generator=fresh(), dtype=torch.float64)
    kind = type(make_linear((1, 1, 1, 1), "linf", 0.1).objective)
    goal, same = kind(bent(images) + 1), kind(bent(images) + 1)
    CW(steps=9, confidence=0.5)(bent, images, goal, Threat(eps=0.1), generator=fresh())
    PGD(steps=9, random_start=False)(bent, images, same, Threat(eps=0.1), generator=fresh())
    mine, known = (torch.stack([values for _, values in record]) for record in (goal.record, same.record))
    assert mine.shape == known.shape == (10, 4)
    passed = (known > 0.5).cumsum(0).clamp(max=1).bool()
    assert passed.any(0).all()
    for i in range(4):
        first = int(passed[:, i].long().argmax())
        assert torch.equal(mine[: first + 1, i], known[: first + 1, i])
        assert (mine[first:, i] == known[first, i]).all()  # and there it stays


def test_an_image_that_has_ended_stays_however_often_it_is_looked_at() -> None:
    images = torch.rand(2, 3, 3, 3, generator=fresh(), dtype=torch.float64)
    attack, threat = CW(steps=3, targets=2), Threat(eps=0.1)
    noise, run = ImageNoise.drawn(fresh(), 2, images.device), torch.tensor([1, 2])
    state, points = attack.begin(images, threat, noise, run), []
    assert torch.equal(state["x"][0], images[0]) and not torch.equal(state["x"][1], images[1])
    for _ in range(8):
        points.append(state["x"])
        values = torch.full((2,), -1.0, dtype=torch.float64)
        state = attack.advance(state, values, torch.ones_like(images), values > 0, threat)
    moves = [not torch.equal(a, b) for a, b in pairwise(points)]
    assert moves == [True] * 3 + [False] * 4 and state["done"].all()
