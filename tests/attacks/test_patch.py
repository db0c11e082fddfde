from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from robustree.attacks import ImageNoise, Patch, Threat
from robustree.objectives import Margin
from robustree.taxonomy import Forest
from robustree.tree_model import Scores

SHAPES = [(2, 3, 8, 8), (3, 1, 5, 12), (1, 3, 11, 4), (2, 2, 1, 1)]
ANY = Threat(eps=1.0)


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True, eq=False)
class Total:
    """The objective f(x) itself, never achieved."""

    def __call__(self, output: Tensor) -> Tensor:
        return output

    def lead(self, output: Tensor) -> Tensor:
        return torch.full_like(output, -torch.inf)

    def take(self, index: Tensor) -> Total:
        return self


def linear(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    images = torch.rand(shape, generator=fresh(seed), dtype=torch.float64)
    weight = torch.randn(shape[1:], generator=fresh(seed + 1), dtype=torch.float64)
    return images, weight, lambda x: (x * weight).flatten(1).sum(1)


def windows(side: int, height: int, width: int) -> list[tuple[slice, slice]]:
    return [
        (slice(top, top + side), slice(left, left + side))
        for top in range(height - side + 1)
        for left in range(width - side + 1)
    ]


@pytest.mark.parametrize("area", [0.03, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_best_pixels_of_the_strongest_window_are_found_and_all_others_are_untouched(
    shape: tuple[int, ...], area: float
) -> None:
    images, weight, f = linear(shape)
    side = max(1, round(math.sqrt(area * shape[2] * shape[3])))
    rows, columns = max(windows(side, *shape[2:]), key=lambda w: float(weight[:, w[0], w[1]].abs().sum()))
    best = images.clone()
    best[:, :, rows, columns] = (weight[:, rows, columns] > 0).double().expand_as(best[:, :, rows, columns])
    made = Patch(area=area, steps=25)(f, images, Total(), ANY, generator=fresh())
    assert torch.equal(made, best)


def test_the_window_follows_each_image() -> None:
    # the gradient is 2 (x - 0.5) * bump, and each image has its strongest window elsewhere
    images = torch.full((3, 3, 9, 10), 0.5, dtype=torch.float64)
    corners = [(0, 0), (3, 7), (6, 4)]
    for image, (top, left) in zip(images, corners, strict=True):
        image[:, top : top + 3, left : left + 3] = 0.6
    f = lambda x: (x - 0.5).square().flatten(1).sum(1)  # noqa: E731
    made = Patch(area=0.1, steps=12)(f, images, Total(), ANY, generator=fresh())
    for image, clean, (top, left) in zip(made, images, corners, strict=True):
        changed = (image != clean).any(0).nonzero().tolist()
        assert changed == [[top + i, left + j] for i in range(3) for j in range(3)]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_inside_the_window_the_threat_holds(norm: str) -> None:
    images, _, f = linear((4, 3, 10, 7))
    threat = Threat(eps=0.2, norm=norm)
    made = Patch(area=0.1, steps=30, restarts=3)(f, images, Total(), threat, generator=fresh())
    assert threat.contains(made, images, tolerance=1e-12).all() and (f(made) > f(images)).all()
    changed = (made != images).any(1)
    assert (changed.flatten(1).sum(1) <= 9).all()


def test_every_target_of_the_first_restart_gets_the_strongest_window_of_its_own_gradient(two_trees: Forest) -> None:
    # each of the nine leaves looks at one ninth of the image, the true leaf 0 least steeply of all
    nodes, points = len(two_trees.names), []
    slopes = 1 + torch.arange(9, dtype=torch.float64) / 10

    def f(x: Tensor) -> Scores:
        points.append(x.detach().clone())
        leaves = slopes * F.avg_pool2d(x, 3).flatten(1)
        return Scores(leaves, leaves, torch.cat([leaves, leaves.new_zeros(len(x), nodes - 9)], 1))

    images = torch.full((1, 1, 9, 9), 0.5, dtype=torch.float64)
    goal = Margin(two_trees.leaf_cut, torch.tensor([0]))
    Patch(area=1 / 9, steps=2, targets=8)(f, images, goal, ANY, generator=fresh())
    places = {tuple((x[0, 0] != 0.5).nonzero().amin(0).tolist()) for x in points if (x != 0.5).any()}
    assert places == {(3 * (leaf // 3), 3 * (leaf % 3)) for leaf in range(1, 9)}


def test_restarts_take_random_windows_that_reach_every_corner_and_never_lose() -> None:
    images, _, f = linear((5, 3, 6, 6))
    attack = Patch(area=0.3, steps=3)  # side 3, so 16 windows
    noise = ImageNoise.drawn(fresh(), len(images), images.device)
    seen = set()
    for run in range(1, 60):
        state = attack.begin(images, ANY, noise, torch.full((5,), run))
        for mask, x, clean in zip(state["mask"][:, 0], state["x"], images, strict=True):
            spots = mask.nonzero()
            top, left = spots.amin(0).tolist()
            assert spots.tolist() == [[top + i, left + j] for i in range(3) for j in range(3)]
            assert torch.equal((x != clean).any(0), mask)
            seen.add((top, left))
    assert seen == {(top, left) for top in range(4) for left in range(4)}
    heights = [f(Patch(area=0.3, steps=3, restarts=n)(f, images, Total(), ANY, generator=fresh())) for n in (1, 2, 8)]
    assert (heights[1] >= heights[0]).all() and (heights[2] >= heights[1]).all()


@pytest.mark.parametrize("stop", [False, True])
def test_a_patch_turns_a_linear_decision_exactly_when_one_window_can(
    stop: bool, make_linear: Callable[..., Any]
) -> None:
    images, weight, f = linear((2, 3, 4, 5), seed=4)
    side = 2
    gains = torch.stack(
        [
            torch.maximum(-images * weight, (1 - images) * weight)[:, :, rows, columns].flatten(1).sum(1)
            for rows, columns in windows(side, 4, 5)
        ]
    ).amax(0)
    kind = type(make_linear((1, 1, 1, 1), "linf", 0.1).objective)
    attack = Patch(area=4 / 20, steps=25, restarts=60, stop=stop)  # so many that every window is met
    for share, succeeds in [(0.999, True), (1.001, False)]:
        goal = kind(f(images) + share * gains)
        made = attack(f, images, goal, ANY, generator=fresh())
        assert (goal(f(made)) > 0).tolist() == [succeeds] * 2


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_results_do_not_depend_on_the_batch_size(norm: str) -> None:
    images, _, f = linear((5, 3, 6, 7))
    wavy = lambda x: torch.sin(5 * f(x)) + f(x)  # noqa: E731
    attack = Patch(area=0.2, steps=6, restarts=3)
    whole, parts = (
        attack(wavy, images, Total(), Threat(eps=0.5, norm=norm), generator=fresh(), batch_size=size)
        for size in (None, 2)
    )
    assert torch.equal(whole, parts) and not torch.equal(whole, images)


def test_float32_images_stay_float32_and_clean_pixels_bitwise_clean() -> None:
    images = torch.rand(2, 3, 20, 20, generator=fresh())
    f = lambda x: torch.sin(9 * x).flatten(1).sum(1)  # noqa: E731
    made = Patch(steps=8)(f, images, Total(), ANY, generator=fresh())
    assert made.dtype == torch.float32
    assert ((made != images).any(1).flatten(1).sum(1) == round(math.sqrt(0.03 * 400)) ** 2).all()


@pytest.mark.parametrize("options", [{"area": 0.0}, {"area": 1.5}, {"area": math.nan}])
def test_areas_that_are_no_share_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^Patch has area .*: write 0\.03 for 3 percent\.$"):
        Patch(**options)


@pytest.mark.parametrize("options", [{"steps": 0}, {"step_size": 0.0}, {"step_size": math.inf}, {"restarts": 0}])
def test_impossible_schedules_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^Patch has (steps|restarts) .* start at 1"):
        Patch(**options)


def test_a_square_that_does_not_fit_and_other_shapes_are_refused() -> None:
    images, _, f = linear((1, 3, 2, 20))
    with pytest.raises(ValueError, match=r"^Patch has area 0\.5, a square of side 4, and .* at most 0\.1\.$"):
        Patch(area=0.5)(f, images, Total(), ANY, generator=fresh())
    with pytest.raises(ValueError, match=r"^Patch was given images of shape \(1, 60\); it needs \(B, C, H, W\)\.$"):
        Patch()(f, images.flatten(1)[:, :60], Total(), ANY, generator=fresh())


def test_names_say_what_ran() -> None:
    assert [Patch().name, Patch(area=0.1, steps=5, targets=3, restarts=2).name] == [
        "patch-0.03-100",
        "patch-0.1-t3-5x2",
    ]
