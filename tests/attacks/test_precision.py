from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.attacks import APGD, PGD, Expectation, LowPrecision, Threat
from robustree.geometry import Poincare
from robustree.objectives import Margin
from robustree.tree_model import TreeModel

BALL = Threat(eps=0.1)


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True, eq=False)
class Rounding:
    """The sum of an image by a matrix product, which autocast runs in low precision; counts forwards by precision."""

    forwards: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})

    def __call__(self, x: Tensor) -> Tensor:
        self.forwards[torch.is_autocast_enabled("cpu")] += len(x)
        flat = x.flatten(1)
        return torch.nn.functional.linear(flat, torch.ones(1, flat.shape[1]))[:, 0]


@dataclass(frozen=True, eq=False)
class Above:
    """output - offset, decided without rounding the offset."""

    offset: Tensor

    def __call__(self, output: Tensor) -> Tensor:
        return output.float() - self.offset

    def lead(self, output: Tensor) -> Tensor:
        return output.float() - self.offset

    def take(self, index: Tensor) -> Above:
        return replace(self, offset=self.offset[index])


def case() -> tuple[Rounding, Tensor, Above]:
    """Images of sum 4; with 16 pixels and eps 0.1 the sum reaches 5.6. In bfloat16 numbers between 4 and 8 are 1/32
    apart, so a sum of 5.6 is read as 5.59375 and one of 4.67 as 4.6875."""
    offsets = [4.5, 5.595, 5.7, 4.68, 3.9]
    return Rounding(), torch.full((5, 1, 4, 4), 0.25), Above(torch.tensor(offsets))


def test_bfloat16_decisions_differ_here_from_those_in_full_precision() -> None:
    f = Rounding()
    for values, low, full in [(5.5999, False, True), (4.679, True, False)]:
        x = torch.full((1, 1, 4, 4), values / 16)
        offset = Above(torch.tensor([5.595 if values > 5 else 4.68]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert bool(offset.lead(f(x)) > 0) == low
        assert bool(offset.lead(f(x)) > 0) == full


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("attack", [PGD(steps=30, stop=True, step_size=0.1, restarts=3), APGD(steps=20), PGD(steps=9)])
def test_what_comes_out_holds_in_full_precision_and_nothing_is_lost(attack: Any, batch_size: int | None) -> None:
    f, images, goal = case()
    known = attack(f, images, goal, BALL, generator=fresh())
    made = LowPrecision(attack)(f, images, goal, BALL, generator=fresh(), batch_size=batch_size)
    broken = [(goal.lead(f(x)) > 0).tolist() for x in (known, made)]
    assert broken[0] == broken[1] == [True, True, False, True, True]
    assert torch.equal(made[2], known[2])  # who stands comes out as from the attack in full precision
    assert BALL.contains(made, images).all() and made.dtype == torch.float32


def test_a_claim_that_only_low_precision_believes_is_attacked_again() -> None:
    # the sum can reach 4.679; the offset is 4.68, and bfloat16 reads 4.6875
    f, goal, threat = Rounding(), Above(torch.tensor([4.68, 4.1])), Threat(eps=0.679 / 16)
    images = torch.full((2, 1, 4, 4), 0.25)
    attack = PGD(steps=20, stop=True)

    def low(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return f(x)

    believed = attack(low, images, goal, threat, generator=fresh())
    assert (goal.lead(low(believed)) > 0).tolist() == [True, True]
    assert (goal.lead(f(believed)) > 0).tolist()[0] is False
    made = LowPrecision(attack)(f, images, goal, threat, generator=fresh())
    known = attack(f, images, goal, threat, generator=fresh())
    assert (goal.lead(f(made)) > 0).tolist() == [False, True] and torch.equal(made[0], known[0])


def test_the_search_runs_in_low_precision_and_full_precision_sees_only_the_rest() -> None:
    f, images, goal = case()
    goal = goal.take(torch.tensor([0, 0, 0, 0, 4]))
    LowPrecision(PGD(steps=10, stop=True))(f, images, goal, BALL, generator=fresh())
    assert f.forwards[False] == 5 and f.forwards[True] > 5  # all fell, so one judgement each
    with torch.autocast("cpu", dtype=torch.bfloat16):  # a caller's own autocast does not reach the judgement
        f.forwards.update({True: 0, False: 0})
        LowPrecision(PGD(steps=10, stop=True))(f, images, goal, BALL, generator=fresh())
    assert f.forwards[False] == 5


def test_a_tree_model_breaks_wherever_full_precision_breaks_it(
    make_tree_model: Callable[..., TreeModel], tiny_images: Callable[[int], Tensor]
) -> None:
    model = make_tree_model(Poincare(1.0)).requires_grad_(False)
    images, cut = tiny_images(8), model.forest.leaf_cut
    goal = Margin(cut, model(images).at(cut).argmax(1))
    threat = Threat(eps=6 / 255)
    for attack in (PGD(steps=6, stop=True), APGD(steps=6, targets=2, stop=True)):
        known, made = (
            a(model, images, goal, threat, generator=fresh(), batch_size=3) for a in (attack, LowPrecision(attack))
        )
        broken, mine = goal.lead(model(known)) > 0, goal.lead(model(made)) > 0
        assert (mine >= broken).all() and broken.any() and threat.contains(made, images).all()
        assert torch.equal(made[~mine], known[~mine])
    inside = Expectation(LowPrecision(PGD(steps=3, stop=True)), samples=2)
    assert threat.contains(inside(model, images, goal, threat, generator=fresh()), images).all()
    assert inside.name == "pgd-3-bfloat16-eot2"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int8])
def test_precisions_that_are_not_low_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"^LowPrecision has dtype torch\..*: choose one\.$"):
        LowPrecision(PGD(), dtype=dtype)
    assert LowPrecision(PGD(), dtype=torch.float16).name == "pgd-20-float16"
