from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor

from robustree.attacks import APGD, PGD, ImageNoise, Threat
from robustree.attacks.threat import per_image
from robustree.objectives import CrossEntropy, DifferenceOfLogitsRatio, Margin

THREATS = [Threat(eps=0.03), Threat(eps=0.2, norm="l2")]
CPU = torch.device("cpu")
OFFICIAL = {"linf": "Linf", "l2": "L2"}


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def halvings(steps: int) -> list[int]:
    """After which steps APGD halves its step where nothing ever rises: at every checkpoint."""
    attack, threat, images = APGD(steps=steps), Threat(eps=0.1), torch.full((1, 1), 0.5, dtype=torch.float64)
    noise, nothing = ImageNoise.drawn(fresh(), 1, CPU), torch.zeros(1, dtype=torch.float64)
    state, sizes = attack.begin(images, threat, noise, torch.zeros(1, dtype=torch.long)), []
    for _ in range(steps + 1):
        sizes.append(float(state["step"]))
        state = attack.advance(state, nothing, torch.zeros_like(images), nothing > 0, threat)
    sizes.append(float(state["step"]))
    return [step for step in range(1, steps + 1) if sizes[step + 1] < sizes[step]]


@pytest.mark.parametrize("steps", [10, 20, 50, 100, 1000])
@pytest.mark.usefixtures("official")
def test_the_checkpoints_are_those_of_the_authors(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []

    def recorded(self: Any, losses: Tensor, at: int, *others: Any, **options: Any) -> Tensor:
        checked.append(at + 1)
        return torch.zeros(losses.shape[1])

    monkeypatch.setattr(APGDAttack, "check_oscillation", recorded)
    attack = APGDAttack(lambda x: torch.cat([x, -x], 1), n_iter=steps, eps=0.1, device="cpu")
    attack.init_hyperparam(torch.full((1, 1), 0.5))
    attack.attack_single_run(torch.full((1, 1), 0.5), torch.zeros(1, dtype=torch.long))
    assert halvings(steps) == checked and len(checked) > 4


@pytest.mark.parametrize("steps", [100, 1000])
def test_the_checkpoints_are_those_of_the_paper(steps: int) -> None:
    # p_0 = 0, p_1 = 0.22, p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06)
    at = [Fraction(0), Fraction(22, 100)]
    while at[-1] < 1:
        at.append(at[-1] + max(at[-1] - at[-2] - Fraction(3, 100), Fraction(6, 100)))
    assert halvings(steps) == [math.ceil(share * steps) for share in at[1:-1]]


def both(network: Any, threat: Threat, loss: str, steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From the same starts: our iterates and the authors', (steps + 1, B, ...), and which images each attack breaks."""
    objective = (CrossEntropy if loss == "ce" else DifferenceOfLogitsRatio)(network.cut, network.leaves)
    ours, theirs = network.fresh(), network.fresh()
    options = {"norm": OFFICIAL[threat.norm], "eps": threat.eps, "n_iter": steps, "device": "cpu"}
    if loss == "dlr-targeted":
        rivals = objective.rivals(network(network.images), 4)[:, 3]
        objective, attack = objective.aimed(rivals), APGDAttack_targeted(theirs.logits, **options)
        attack.y_target = rivals
    else:
        attack = APGDAttack(theirs.logits, loss=loss, **options)
    starts = threat.random_start(network.images, ImageNoise.drawn(fresh(), len(network.images), CPU), 0)
    attack.init_hyperparam(network.images)
    _, right, *_ = attack.attack_single_run(network.images, network.leaves, x_init=starts)
    made = APGD(steps=steps)(ours, network.images, objective, threat, generator=fresh(), starts=starts)
    return torch.stack(ours.seen), torch.stack(theirs.seen), network.wrong(made), ~right.bool()


def saturated(network: Any, iterates: Tensor) -> Tensor:
    """(steps + 1, B) whether the ratio has been constant before this iterate: it is 1 wherever the true class comes
    third, so the gradient there is 0, or a rounding error whose sign is anything."""
    ranked = torch.stack([network.classify(x).argsort(1, descending=True) for x in iterates])
    third = (ranked[:, :, 2] == network.leaves).cumsum(0) > 0
    return torch.cat([torch.zeros_like(third[:1]), third[:-1]])


@pytest.mark.parametrize(
    ("threat", "steps"), [(THREATS[0], 100), (THREATS[0], 20), (THREATS[1], 20)], ids=["linf-100", "linf-20", "l2-20"]
)
@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr-targeted"])
@pytest.mark.usefixtures("official")
def test_every_iterate_is_that_of_the_authors(
    threat: Threat, steps: int, loss: str, make_network: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The l2 ascent has converged to the last digit after 30 steps, and then rounding decides which point is the best.
    # The authors add 1e-12 to each length; our steps of ascent do not depend on the gradient's scale.
    if threat.norm == "l2":
        monkeypatch.setattr(APGDAttack, "normalize", lambda self, x: x / per_image(x.flatten(1).norm(dim=1), x))
    network = make_network(40, seed=2)  # no two points that it compares have the same loss up to rounding
    ours, theirs, broken, broken_by_theirs = both(network, threat, loss, steps)
    assert len(ours) == len(theirs) == steps + 1
    apart = (ours - theirs).flatten(2).abs().amax(2)
    if loss == "dlr":
        flat = saturated(network, theirs)
        apart = apart.masked_fill(flat, 0)
        assert (~flat).sum() > 0.5 * flat.numel() and (~flat[-1]).sum() > 15
    assert apart.max() < 1e-10
    assert torch.equal(broken, broken_by_theirs) and 0 < broken.sum() < 40


@pytest.mark.parametrize("eps", [0.15, 0.3])
@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr-targeted"])
@pytest.mark.usefixtures("official")
def test_the_same_images_fall_as_under_the_attack_of_the_authors(
    eps: float, loss: str, make_network: Callable[..., Any]
) -> None:
    *_, broken, broken_by_theirs = both(make_network(40, seed=1), Threat(eps=eps, norm="l2"), loss, 100)
    assert torch.equal(broken, broken_by_theirs) and 0 < broken.sum() < 40


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
def test_starts_have_the_length_eps_before_the_box_cuts_them(threat: Threat) -> None:
    images = torch.full((5, 3, 4, 6), 0.5, dtype=torch.float64)
    noise, runs = ImageNoise.drawn(fresh(), 5, CPU), torch.arange(5)
    start = APGD().begin(images, threat, noise, runs)["x"]
    assert torch.allclose(threat.distance(start, images), torch.full((5,), threat.eps, dtype=torch.float64))
    again = APGD().begin(images, threat, noise, runs + 1)["x"]
    assert not (start == again).flatten(1).all(1).any()


@pytest.mark.parametrize("shape", [(3, 3, 4, 4), (2, 3, 2, 7), (1, 1, 9, 2), (3, 12)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_decision_changes_exactly_beyond_its_known_distance(
    shape: tuple[int, ...], norm: str, make_linear: Callable[..., Any]
) -> None:
    victim = make_linear(shape, norm, 0.1)
    for radius, succeeds in [(0.0995, False), (0.1005, True)]:
        threat = Threat(eps=radius, norm=norm)
        made = APGD(steps=40)(victim, victim.images, victim.objective, threat, generator=fresh())
        assert threat.contains(made, victim.images, tolerance=1e-12).all()
        assert (victim.objective(victim(made)) > 0).tolist() == [succeeds] * len(made)


@pytest.mark.parametrize("threat", [Threat(eps=0.1), Threat(eps=0.7, norm="l2")], ids=lambda threat: threat.norm)
@pytest.mark.parametrize(
    ("attack", "kind"),
    [
        (APGD(steps=50), CrossEntropy),
        (APGD(steps=50), DifferenceOfLogitsRatio),
        (APGD(steps=50), Margin),
        (APGD(steps=50, targets=9, stop=True), DifferenceOfLogitsRatio),
        (PGD(steps=100, step_size=0.1), Margin),
    ],
)
def test_planted_errors_are_found(attack: Any, kind: Any, threat: Threat, make_planted: Callable[..., Any]) -> None:
    victim = make_planted(threat)
    assert not victim.wrong(victim.images).any()
    made = attack(victim, victim.images, kind(victim.cut, victim.leaves), threat, generator=fresh())
    assert victim.wrong(made).all() and threat.contains(made, victim.images).all()


def test_names_say_what_ran_and_impossible_schedules_are_refused() -> None:
    names = [APGD().name, APGD(steps=20, restarts=5).name, APGD(targets=9).name]
    assert names == ["apgd-100", "apgd-20x5", "apgd-t9-100"]
    for options in ({"steps": 0}, {"rho": 0.0}, {"rho": 1.0}, {"rho": math.nan}):
        with pytest.raises(ValueError, match=r"^APGD has steps .* and rho .*: steps start at 1 and 0 < rho < 1\.$"):
            APGD(**options)
