from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.attacks import APGD, CW, FAB, AutoAttack, Search, Square, Threat
from robustree.attacks.foresight import Foresight
from robustree.attacks.search import HOST_LOOKS, _Loop
from robustree.objectives import EmbeddingShift, Margin
from robustree.tree_model import Scores

CPU = torch.device("cpu")


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ends(leads: list[float], optimism: float | None, evaluations: int = 64) -> int | None:
    """After how many looks a run with these leads is hopeless."""
    foresight = Foresight(evaluations, optimism, CPU)
    foresight.enter(1)
    for looked, lead in enumerate(leads, start=1):
        foresight.look(torch.tensor([lead]), [looked])
        if foresight.hopeless.item():
            return looked
    return None


def logarithmic(gain: float, start: float) -> list[float]:
    """Leads that rise by `gain` with every doubling of the looks."""
    return [start + gain * math.log2(looked) for looked in range(1, 65)]


@pytest.mark.parametrize("optimism", [0.5, 1.0, 3.0])
def test_a_run_ends_exactly_when_the_foreseen_lead_is_negative(optimism: float) -> None:
    # 64 looks are two doublings after a quarter and one after half: the gain foreseen is 2 and 1 times optimism.
    at_a_quarter, at_half = 4 + 2 * optimism, 5 + optimism
    assert ends(logarithmic(1.0, -at_a_quarter - 1e-3), optimism) == 16
    assert ends(logarithmic(1.0, -min(at_a_quarter, at_half) + 1e-3), optimism) is None
    if at_half < at_a_quarter:
        assert ends(logarithmic(1.0, -at_a_quarter + 1e-3), optimism) == 32


def test_with_an_optimism_of_one_no_run_that_gains_evenly_and_would_succeed_ends() -> None:
    for start in torch.linspace(-7, 1, 81).tolist():
        leads = logarithmic(1.0, start)
        assert (ends(leads, 1.0) is None) == (leads[-1] >= 0)


def test_the_best_lead_counts_and_what_is_no_number_does_not() -> None:
    leads = logarithmic(1.0, -5.9)
    leads[20:] = [-100.0] * 44
    assert ends(leads, 1.0) == 32  # nothing was gained since the quarter
    assert ends([math.nan] * 64, 1.0) is None
    assert ends([-math.inf] * 64, 1.0) is None


def test_without_optimism_and_in_short_runs_nothing_is_foreseen() -> None:
    leads = [-1e9] * 64
    assert ends(leads, None) is None
    assert ends(leads[:31], 1.0, evaluations=31) is None
    assert ends(leads[:32], 1.0, evaluations=32) == 8


def test_places_enter_and_leave_on_their_own() -> None:
    foresight = Foresight(64, 1.0, CPU)
    foresight.enter(1)
    for looked in range(1, 9):
        foresight.look(torch.tensor([-9.0]), [looked])
    foresight.enter(2)
    for looked in range(1, 9):
        foresight.look(torch.tensor([-9.0, -2.0, float(looked)]), [8 + looked, looked, looked])
    assert foresight.hopeless.tolist() == [True, False, False]
    foresight.stay(torch.tensor([1, 2]))
    for looked in range(9, 17):
        foresight.look(torch.tensor([-2.0, -1.0]), [looked, looked])
    assert foresight.hopeless.tolist() == [True, False]  # the second was on the attacker's side once
    assert foresight.lead.tolist() == [-2.0, 8.0]


ATTACKS = [APGD(steps=40, stop=True, optimism=2.0), Square(queries=60, stop=True, optimism=2.0)]


def test_images_out_of_reach_cost_a_quarter_and_the_others_fall(make_linear: Callable[..., Any]) -> None:
    """Every second decision is ten times as far as the threat reaches; a linear one gains nothing after a few steps."""
    distance = torch.where(torch.arange(12) % 2 == 0, 0.4, 0.01)
    linear = make_linear((12, 3, 6, 6), "linf", distance.double())
    made = ATTACKS[0](linear, linear.images, linear.objective, Threat(eps=0.04), generator=fresh())
    # a look at each clean image, a quarter of 41 evaluations of those out of reach, a few of the others
    assert 12 + 6 * 10 < sum(linear.seen) < 12 + 6 * 10 + 6 * 10
    assert torch.equal(linear.objective.lead(linear(made)) > 0, distance < 0.04)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_neither_the_batch_size_nor_rare_looks_change_a_result(
    attack: Search, make_network: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network(10, classes=5, gain=4.0)
    objective = Margin(network.cut, network.leaves)

    def made(size: int | None) -> Tensor:
        return attack(network, network.images, objective, Threat(eps=0.04), generator=fresh(), batch_size=size)

    images = [made(size) for size in (None, 1, 4)]

    def rarely(loop: _Loop) -> Any:
        left = loop.rule.evaluations - max(looked for _, _, looked in loop.places)
        return iter(range(min(left, HOST_LOOKS)))

    monkeypatch.setattr(_Loop, "_undisturbed", rarely)
    images.append(made(4))
    assert all(torch.equal(images[0], other) for other in images[1:])


def test_every_other_target_is_still_tried(make_network: Callable[..., Any]) -> None:
    """A hopeless run ends alone: its image goes on with the next class."""
    network = make_network(6, classes=4, gain=1.0)
    attack = APGD(steps=40, targets=3, stop=True, optimism=1.0)
    attack(network, network.images, Margin(network.cut, network.leaves), Threat(eps=1e-4), generator=fresh())
    # a look at the clean image and, for each of 3 classes, a quarter or half of 41 evaluations
    assert 6 * (1 + 3 * 10) <= network.forwards <= 6 * (1 + 3 * 20)


def test_an_objective_about_no_decision_runs_to_its_end() -> None:
    images, counted = torch.rand(3, 3, 4, 4, generator=fresh()), []

    def f(x: Tensor) -> Scores:
        counted.append(len(x))
        return Scores(x.flatten(1), x, x)

    goal = EmbeddingShift(images.flatten(1))
    APGD(steps=40, stop=True, optimism=1.0)(f, images, goal, Threat(eps=0.01), generator=fresh())
    assert sum(counted) == 3 * (1 + 41)


def test_impossible_optimism_is_refused() -> None:
    match = (
        r"^\w+ has optimism .*; optimism is above 0, asks for stop=True, and is not for attacks that leave the threat"
    )
    for made in (
        lambda: APGD(stop=True, optimism=0.0),
        lambda: APGD(stop=True, optimism=math.nan),
        lambda: APGD(optimism=1.0),
        lambda: FAB(stop=True, optimism=1.0),
        lambda: CW(stop=True, optimism=1.0),
    ):
        with pytest.raises(ValueError, match=match):
            made()


def test_the_cascade_takes_every_step_of_the_authors_when_asked() -> None:
    whole = [stage.attack for stage in AutoAttack(optimism=None).stages]
    assert all(attack.optimism is None for attack in whole) and whole[2].patience is None
    early = [stage.attack for stage in AutoAttack().stages]
    assert [attack.optimism for attack in early] == [4.0, 4.0, None, 4.0] and early[2].patience == 20
    assert all(stage.attack.optimism is None for stage in AutoAttack(version="rand").stages)
