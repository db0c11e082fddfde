from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.attacks import PGD, Expectation, Threat, straight_through
from robustree.attacks.expectation import MeanObjective
from robustree.objectives import CrossEntropy, Margin, every_level
from robustree.taxonomy import Cut, Forest
from robustree.tree_model import Scores

BALL = Threat(eps=0.1)


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True, eq=False)
class Cycling:
    """A model that answers with one weight after another, as if it drew them."""

    weights: Tensor
    calls: list[int]

    def __call__(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        return (x * self.weights[(len(self.calls) - 1) % len(self.weights)]).flatten(1).sum(1)


@pytest.mark.parametrize("samples", [1, 3, 8])
def test_values_and_gradients_are_means_and_the_decision_is_that_of_the_majority(
    samples: int, make_linear: Callable[..., Any]
) -> None:
    weights = torch.randn(samples, 3, 2, 3, generator=fresh(), dtype=torch.float64)
    images = torch.rand(6, 3, 2, 3, generator=fresh(1), dtype=torch.float64)
    offset = torch.randn(6, generator=fresh(2), dtype=torch.float64)
    goal = type(make_linear((1, 1, 1, 1), "linf", 0.1).objective)(offset)
    mean = MeanObjective(goal, quorum=samples // 2 + 1)
    x = images.requires_grad_(True)
    outputs = [(x * weight).flatten(1).sum(1) for weight in weights]
    values = mean(outputs)
    each = torch.einsum("bchw,schw->sb", images, weights) - offset
    assert torch.allclose(values, each.mean(0))
    assert torch.allclose(torch.autograd.grad(values.sum(), x)[0], weights.mean(0).expand_as(images))
    assert (mean.lead(outputs) > 0).tolist() == [2 * votes > samples for votes in (each > 0).sum(0).tolist()]
    part = torch.tensor([4, 1])
    assert torch.equal(mean.take(part)([output[part] for output in outputs]), values[part])


def test_the_mean_model_is_attacked_at_samples_forwards_a_point() -> None:
    # one weight of four dominates: the optimum of the mean is a corner that no single weight leads to
    weights = torch.randn(4, 3, 3, 3, generator=fresh(), dtype=torch.float64)
    f = Cycling(weights, [])
    images = 0.3 + 0.4 * torch.rand(5, 3, 3, 3, generator=fresh(1), dtype=torch.float64)
    attack = Expectation(PGD(steps=10), samples=4)
    made = attack(f, images, Never(), BALL, generator=fresh(), batch_size=2)
    assert torch.allclose(made, images + 0.1 * weights.mean(0).sign())
    assert sum(f.calls) == 4 * 11 * 5 and max(f.calls) == 2
    single = PGD(steps=10)(Cycling(weights, []), images, Never(), BALL, generator=fresh())
    assert not torch.allclose(single, made)


def test_on_a_deterministic_model_it_is_the_attack_itself(make_linear: Callable[..., Any]) -> None:
    victim = make_linear((6, 3, 2, 5), "linf", torch.tensor([0.02, 0.05, 0.09, 0.2, -0.1, 0.01], dtype=torch.float64))
    for stop in (False, True):
        plain = PGD(steps=8, restarts=2, stop=stop)
        known, mine = (
            attack(victim, victim.images, victim.objective, BALL, generator=fresh())
            for attack in (plain, Expectation(plain, samples=4))
        )
        assert torch.equal(known, mine)  # the mean of 4 equal numbers is exact


@pytest.mark.parametrize(("votes", "stays"), [(2, False), (3, True)])
def test_an_image_that_most_samples_get_wrong_needs_no_attack(
    votes: int, stays: bool, make_linear: Callable[..., Any]
) -> None:
    weights = torch.where(torch.arange(5) < votes, 1.0, -1.0).double().view(5, 1, 1, 1).expand(5, 1, 2, 2)
    goal = type(make_linear((1, 1, 1, 1), "linf", 0.1).objective)(torch.zeros(1, dtype=torch.float64))
    images = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    attack = Expectation(PGD(steps=2, stop=True), samples=5)
    made = attack(Cycling(weights, []), images, goal, BALL, generator=fresh())
    assert torch.equal(made, images) == stays


def test_noise_that_turns_gradients_round_misleads_the_attack_and_not_its_expectation(
    make_linear: Callable[..., Any],
) -> None:
    victim = make_linear((4, 3, 4, 4), "linf", 0.099)
    generator = fresh(5)

    def fickle(x: Tensor) -> Tensor:
        # right in the mean, and the gradient of one draw points backwards two times in five
        sign = 1.0 if torch.rand((), generator=generator) < 0.6 else -1.0
        centred = ((x - victim.images) * victim.weight).flatten(1).sum(1)
        return (victim.images * victim.weight).flatten(1).sum(1) + 5 * sign * centred

    wanted = victim.objective.offset
    reached = {}
    for name, attack in {"plain": PGD(steps=20), "mean": Expectation(PGD(steps=20), samples=61)}.items():
        made = attack(fickle, victim.images, victim.objective, BALL, generator=fresh())
        reached[name] = (victim(made) - wanted > 0).tolist()
    assert reached == {"plain": [False] * 4, "mean": [True] * 4}


def test_forest_objectives_are_aimed_at_the_rivals_that_the_samples_agree_on(two_trees: Forest) -> None:
    cut, nodes = two_trees.leaf_cut, len(two_trees.names)
    logits = torch.zeros(3, 2, nodes)
    # image 0: leaf 1 is second in all samples, 2, 3 and 4 are first in one each; image 1: leaf 5 leads twice
    for sample, first in enumerate([2, 3, 4]):
        logits[sample, 0, first], logits[sample, 0, 1] = 9.0, 8.0
        logits[sample, 1, [5, 6, 5][sample]], logits[sample, 1, 7] = 9.0, 8.0
    outputs = [Scores(torch.zeros(2, 1), torch.zeros(nodes, 1), each) for each in logits]
    mean = MeanObjective(Margin(cut, torch.tensor([0, 0])), quorum=2)
    assert mean.rivals(outputs, 2)[0, 0] == 1 and mean.rivals(outputs, 2).shape == (2, 2)
    assert mean.rivals(outputs, 2)[1].tolist() == [5, 7] and mean.rivals(outputs, 1).tolist()[1] == [5]
    aimed = mean.aimed(torch.tensor([1, 5]))
    assert aimed(outputs).tolist() == [8.0, 6.0] and (aimed.lead(outputs) > 0).tolist() == [True, True]
    assert isinstance(mean.under("cross_entropy").objective, CrossEntropy)
    assert mean.under("cross_entropy").quorum == 2


def test_a_level_of_one_node_is_refused_as_by_the_attack_itself() -> None:
    only = Margin(Cut("all", 1, (0,), (0, 0)), torch.zeros(2, dtype=torch.long))
    f = lambda x: Scores(x, x, x.flatten(1)[:, :2])  # noqa: E731
    attack = Expectation(PGD(steps=2, targets=3), samples=3)
    with pytest.raises(ValueError, match=r"^pgd-t3-2 aims at wrong classes, and the level under attack has none: "):
        attack(f, torch.rand(2, 3, 2, 2, generator=fresh()), only, BALL, generator=fresh())


def test_the_mean_is_not_aimed_at_several_levels_at_once(two_trees: Forest) -> None:
    goal = every_level(two_trees.cuts(), torch.zeros(2, dtype=torch.long))
    f = lambda x: Scores(x, x, x.flatten(1)[:, : len(two_trees.names)])  # noqa: E731
    attack = Expectation(PGD(steps=2, targets=3), samples=2)
    with pytest.raises(ValueError, match=r"^the mean .* aimed at 6 levels at once; it can be aimed at one: attack one"):
        attack(f, torch.rand(2, 3, 4, 4, generator=fresh()), goal, BALL, generator=fresh())


@dataclass(frozen=True, eq=False)
class Never:
    """The objective f(x) itself, never achieved."""

    def __call__(self, output: Tensor) -> Tensor:
        return output

    def lead(self, output: Tensor) -> Tensor:
        return torch.full_like(output, -torch.inf)

    def take(self, index: Tensor) -> Never:
        return replace(self)


def test_straight_through_gives_the_defence_forwards_and_the_identity_backwards() -> None:
    x = torch.rand(3, 2, 4, 5, generator=fresh(), requires_grad=True)
    defence = lambda images: (images * 7).round() / 7  # noqa: E731
    output = straight_through(defence)(x)
    assert torch.equal(output, defence(x.detach()))
    upstream = torch.randn(x.shape, generator=fresh(1))
    assert torch.equal(torch.autograd.grad(output, x, upstream)[0], upstream)


def test_a_quantising_defence_hides_gradients_from_the_attack_and_not_straight_through() -> None:
    weight = torch.randn(3, 4, 4, generator=fresh(), dtype=torch.float64)
    images = torch.randint(2, 6, (3, 3, 4, 4), generator=fresh(1)).double() / 8
    defence = lambda x: (x * 8).round() / 8  # noqa: E731
    attack, threat = PGD(steps=10, random_start=False), Threat(eps=0.125)
    reached = {}
    for name, shield in {"plain": defence, "straight": straight_through(defence)}.items():
        f = lambda x, shield=shield: (shield(x) * weight).flatten(1).sum(1)  # noqa: E731
        reached[name] = f(attack(f, images, Never(), threat, generator=fresh()))
    clean = (images * weight).flatten(1).sum(1)
    assert torch.equal(reached["plain"], clean)
    assert torch.allclose(reached["straight"], clean + 0.125 * weight.abs().sum())


def test_a_defence_that_resizes_and_no_samples_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^the defence turns .* \(1, 3, 4, 4\) into \(1, 3, 2, 2\).* outside of it\.$"
    ):
        straight_through(lambda x: x[:, :, ::2, ::2])(torch.rand(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"^Expectation has samples 0; they start at 1\.$"):
        Expectation(PGD(), samples=0)


def test_the_name_says_what_ran() -> None:
    assert Expectation(PGD(steps=5)).name == "pgd-5-eot20"
