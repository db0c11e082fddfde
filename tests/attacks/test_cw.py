from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.attacks import CW, Threat
from robustree.objectives import Margin
from robustree.taxonomy import Forest
from robustree.tree_model import Scores


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bent(x: Tensor) -> Tensor:
    """A smooth function without a closed form."""
    flat = x.flatten(1)
    return (torch.sin(3 * flat) * flat.roll(1, 1)).sum(1) + flat.square().sum(1)


@pytest.mark.parametrize("distance", [0.02, 0.3])
@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (3, 3, 2, 7), (2, 1, 9, 3), (2, 3, 24, 24)])
def test_the_least_change_of_a_linear_decision_is_found_within_two_percent(
    shape: tuple[int, ...], distance: float, make_linear: Callable[..., Any]
) -> None:
    victim = make_linear(shape, "l2", distance)
    threat = Threat(eps=1.02 * distance, norm="l2")
    made = CW(stop=True)(victim, victim.images, victim.objective, threat, generator=fresh())
    assert (victim.objective(victim(made)) > 0).all()
    assert threat.contains(made, victim.images).all() and made.dtype == torch.float64


@pytest.mark.parametrize("saturated", [0.3, 1.0])
def test_black_and_white_pixels_move_and_the_box_is_part_of_the_least_change(
    saturated: float, make_linear: Callable[..., Any]
) -> None:
    # the least change along w inside the box is clip(c + k w) - c, with k found by bisection
    weight = torch.randn(3, 7, 9, generator=fresh(1), dtype=torch.float64)
    images = torch.rand(3, 3, 7, 9, generator=fresh(2), dtype=torch.float64)
    images = torch.where(torch.rand(images.shape, generator=fresh(3)) < saturated, images.round(), images)
    gain = 3.0

    def least(image: Tensor) -> float:
        low, high = 0.0, 100.0
        for _ in range(100):
            middle = (low + high) / 2
            change = (image + middle * weight).clamp(0, 1) - image
            low, high = (low, middle) if (change * weight).sum() >= gain else (middle, high)
        return float(((image + high * weight).clamp(0, 1) - image).norm())

    f = lambda x: (x * weight).flatten(1).sum(1)  # noqa: E731
    goal = type(make_linear((1, 1, 1, 1), "l2", 0.1).objective)(f(images) + gain)
    for i, image in enumerate(images):
        known = least(image)
        assert known > 1.03 * gain / weight.norm()  # the box costs something
        threat, mine = Threat(eps=1.02 * known, norm="l2"), goal.take(torch.tensor([i]))
        made = CW(stop=True)(f, image[None], mine, threat, generator=fresh())
        assert bool(mine(f(made)) > 0) and threat.contains(made, image[None]).all()


def plain_search(
    f: Callable[[Tensor], Tensor], offset: float, image: Tensor, threat: Threat, attack: CW
) -> list[float]:
    """All margins that an attack on one image meets: a loop over torch's own Adam, one for each pixel, and autograd."""
    low, width = threat.low, threat.high - threat.low
    step = attack.lr * threat.eps / math.sqrt(image.numel())
    start = torch.atanh(2 * (image.clamp(low + step, low + width - step) - low) / width - 1)
    rates = (step / (width / 2 / torch.cosh(start) ** 2)).clamp(max=0.2).flatten().tolist()
    price, bounds, margins = attack.constant, [0.0, math.inf], []
    for _ in range(attack.search_steps):
        pixels = [w.clone().requires_grad_(True) for w in start.flatten()]
        adam = torch.optim.Adam([{"params": [w], "lr": lr} for w, lr in zip(pixels, rates, strict=True)])
        turned = False
        for _ in range(attack.steps + 1):
            x = low + width * (torch.tanh(torch.stack(pixels).view(image.shape)) + 1) / 2
            margin = f(x[None])[0] - offset
            margins.append(float(margin.detach()))
            turned |= margins[-1] >= attack.confidence and margins[-1] > 0
            loss = (x - image).square().sum() + price * (attack.confidence - margin).clamp(min=0)
            adam.zero_grad()
            loss.backward()
            adam.step()
        bounds[int(turned)] = price
        price = sum(bounds) / 2 if bounds[1] < math.inf else 10 * price
    return margins


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 3.0)])
@pytest.mark.parametrize("confidence", [0.0, 0.4])
def test_all_points_are_those_of_a_plain_loop_over_one_image(
    confidence: float, low: float, high: float, make_linear: Callable[..., Any]
) -> None:
    images = torch.rand(3, 3, 2, 3, generator=fresh(), dtype=torch.float64)
    offset = bent(images) + torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
    goal = type(make_linear((3, 3, 2, 3), "l2", 0.1).objective)(offset)
    attack = CW(steps=25, search_steps=6, confidence=confidence, constant=0.02)
    threat = Threat(eps=0.5, norm="l2", low=low, high=high)
    made = attack(bent, images, goal, threat, generator=fresh())
    seen = torch.stack([values for _, values in goal.record])
    assert len(seen) == attack.evaluations == 6 * 26
    for i in range(3):
        known = torch.tensor(plain_search(bent, float(offset[i]), images[i], threat, attack), dtype=torch.float64)
        assert torch.allclose(seen[:, i], known, atol=1e-9)
    assert threat.contains(made, images).all()
    assert (seen[:, 0] > 0).any() and not (seen[:, 0] > 0).all()  # both ends of the bisection move


def test_the_returned_image_is_the_highest_of_those_inside_the_threat(make_linear: Callable[..., Any]) -> None:
    victim = make_linear((3, 3, 4, 4), "l2", 0.1)
    points: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        points.append(x.detach().clone())
        return victim(x)

    threat = Threat(eps=0.11, norm="l2")
    made = CW(steps=40)(f, victim.images, victim.objective, threat, generator=fresh())
    inside = torch.stack([threat.contains(x, victim.images) for x in points])
    heights = torch.stack([victim(x) for x in points]).where(inside, -math.inf)
    assert not inside.all() and torch.equal(victim(made), heights.amax(0))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_results_do_not_depend_on_the_batch_size(norm: str, make_linear: Callable[..., Any]) -> None:
    reach = torch.tensor([0.2, 0.6, 1.1, -0.3, 0.9], dtype=torch.float64)
    victim = make_linear((5, 3, 2, 5), norm, reach * 0.2)
    threat = Threat(eps=0.2, norm=norm)
    for stop in (False, True):
        attack = CW(steps=30, search_steps=5, restarts=2, stop=stop)
        whole, parts = (
            attack(victim, victim.images, victim.objective, threat, generator=fresh(), batch_size=size)
            for size in (None, 2)
        )
        assert torch.equal(whole, parts)
        assert (victim.objective(victim(whole)) > 0).tolist() == [True, True, False, True, True]


def test_a_margin_of_a_forest_is_attacked_towards_several_rivals(two_trees: Forest) -> None:
    weight = torch.randn(len(two_trees.names), 12, generator=fresh(3), dtype=torch.float64)
    images = torch.rand(3, 3, 2, 2, generator=fresh(4), dtype=torch.float64)
    f = lambda x: Scores(x, x, x.flatten(1) @ weight.T)  # noqa: E731
    cut = two_trees.leaf_cut
    leaves = f(images).at(cut).argmax(1)
    goal = Margin(cut, leaves)
    # the exact distance: the nearest of the planes between the true leaf and any other
    logits, rows = f(images).at(cut), weight[list(cut.nodes)]
    gaps = logits.gather(1, leaves[:, None]) - logits
    lengths = (rows[leaves][:, None] - rows[None]).norm(dim=2)
    known = (gaps / lengths).nan_to_num(math.inf).masked_fill(lengths == 0, math.inf).amin(1)
    for i, distance in enumerate(known.tolist()):
        threat = Threat(eps=1.03 * distance, norm="l2", low=-9.0, high=9.0)
        one, mine = images[i : i + 1], goal.take(torch.tensor([i]))
        made = CW(targets=len(cut.nodes) - 1, stop=True)(f, one, mine, threat, generator=fresh())
        assert bool(mine.lead(f(made)) > 0) and threat.contains(made, one).all()


def test_an_l2_threat_without_a_box_is_refused(make_linear: Callable[..., Any]) -> None:
    victim = make_linear((2, 3, 2, 2), "l2", 0.1)
    threat = Threat(eps=0.1, norm="l2", low=-math.inf, high=math.inf)
    with pytest.raises(ValueError, match=r"^CW's l2 attack was given the box \[-inf, inf\]; .*: set low and high\.$"):
        CW()(victim, victim.images, victim.objective, threat, generator=fresh())


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"search_steps": 0},
        {"confidence": -1.0},
        {"confidence": math.nan},
        {"lr": 0.0},
        {"lr": math.nan},
        {"constant": math.inf},
        {"step_size": -1.0},
        {"best": False},
        {"restarts": 0},
    ],
)
def test_impossible_schedules_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^CW has "):
        CW(**options)


def test_names_say_what_ran() -> None:
    assert [CW().name, CW(steps=5, targets=9, restarts=2).name] == ["cw-100", "cw-t9-5x2"]
