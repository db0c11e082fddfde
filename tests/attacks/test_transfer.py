from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.attacks import APGD, PGD, Threat, Transfer
from robustree.geometry import Poincare, Sphere
from robustree.objectives import DifferenceOfLogitsRatio, Margin
from robustree.tree_model import TreeModel

BALL = Threat(eps=0.1)


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def refuse(x: Tensor) -> Tensor:
    raise AssertionError("the audited model was called")


@dataclass(frozen=True)
class Weighing:
    weight: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return (x * self.weight).flatten(1).sum(1)


@pytest.mark.parametrize("stop", [False, True])
def test_with_one_source_it_is_the_attack_on_that_source(stop: bool, make_linear: Callable[..., Any]) -> None:
    reach = torch.tensor([0.02, 0.05, 0.09, 0.2, -0.1], dtype=torch.float64)
    victim = make_linear((5, 3, 2, 5), "linf", reach)
    attack = PGD(steps=8, restarts=2, stop=stop)
    known = attack(victim, victim.images, victim.objective, BALL, generator=fresh(), batch_size=2)
    transfer = Transfer(attack=attack, sources=(victim,), name="from-linear")
    mine = transfer(refuse, victim.images, victim.objective, BALL, generator=fresh(), batch_size=3)
    assert torch.equal(mine, known) and transfer.name == "from-linear"


def test_several_sources_are_attacked_in_their_mean(make_linear: Callable[..., Any]) -> None:
    weights = torch.randn(3, 3, 3, 4, generator=fresh(), dtype=torch.float64)
    images = 0.3 + 0.4 * torch.rand(4, 3, 3, 4, generator=fresh(1), dtype=torch.float64)
    goal = type(make_linear((1, 1, 1, 1), "linf", 0.1).objective)(torch.full((4,), 1e6, dtype=torch.float64))
    transfer = Transfer(attack=PGD(steps=10), sources=tuple(Weighing(w) for w in weights), name="from-three")
    made = transfer(refuse, images, goal, BALL, generator=fresh())
    assert torch.allclose(made, images + 0.1 * weights.mean(0).sign())


def test_an_image_stops_only_when_all_sources_are_deceived(make_linear: Callable[..., Any]) -> None:
    near = make_linear((3, 3, 4, 4), "linf", 0.02)
    far = make_linear((3, 3, 4, 4), "linf", 0.08, seed=0)
    twice = lambda x: far(x) - far.objective.offset + near.objective.offset  # noqa: E731
    transfer = Transfer(attack=PGD(steps=20, stop=True), sources=(near, twice), name="from-two")
    made = transfer(refuse, near.images, near.objective, BALL, generator=fresh())
    assert (far.objective(far(made)) > 0).all() and (near.objective(near(made)) > 0).all()
    assert not torch.allclose((made - near.images).abs(), torch.tensor(0.1, dtype=torch.float64))  # stopped early


def test_tree_models_attack_each_other_with_aimed_ratios(
    make_tree_model: Callable[..., TreeModel], tiny_images: Callable[[int], Tensor]
) -> None:
    sources = (make_tree_model(Sphere(), seed=1), make_tree_model(Poincare(1.0), seed=2))
    for source in sources:
        source.requires_grad_(False)
    images, cut = tiny_images(6), sources[0].forest.leaf_cut
    goal = Margin(cut, sources[0](images).at(cut).argmax(1))
    attack = Transfer(attack=APGD(steps=8, targets=3), sources=sources, name="from-both")
    made = attack(refuse, images, goal.under("ratio"), BALL, generator=fresh())
    before, after = (torch.stack([goal(source(x)) for source in sources]).mean(0) for x in (images, made))
    assert isinstance(goal.under("ratio"), DifferenceOfLogitsRatio)
    assert BALL.contains(made, images).all() and (after > before).all()


def test_a_transfer_without_sources_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^the transfer attack 'none' has no sources: give it one model or more\.$"):
        Transfer(attack=PGD(), sources=(), name="none")
