from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustree.attacks import PGD, ImageNoise, Threat

SHAPES = [(1, 3, 4, 4), (3, 3, 2, 7), (3, 3, 1, 1), (1, 1, 9, 2)]
WHOLE = Threat(eps=0.05)


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True, eq=False)
class Total:
    """The objective f(x) itself; `record` (shared) keeps every value."""

    record: list[Tensor]

    def __call__(self, output: Tensor) -> Tensor:
        self.record.append(output.detach().clone())
        return output

    def lead(self, output: Tensor) -> Tensor:
        return output

    def take(self, index: Tensor) -> Total:
        return self


def wavy(x: Tensor) -> Tensor:
    """A function with many local maxima, so that the last iterate is rarely the best."""
    flat = x.flatten(1)
    return (torch.sin(40 * flat) + torch.cos(23 * flat.roll(1, 1) * flat)).sum(1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("best", [True, False])
def test_a_linear_decision_changes_exactly_beyond_its_known_distance(
    shape: tuple[int, ...], norm: str, best: bool, make_linear: Callable[..., Any]
) -> None:
    victim = make_linear(shape, norm, 0.1)
    attack = PGD(steps=40, best=best)
    for radius, succeeds in [(0.099, False), (0.105, True)]:
        threat = Threat(eps=radius, norm=norm)
        made = attack(victim, victim.images, victim.objective, threat, generator=fresh())
        assert made.shape == victim.images.shape and made.dtype == torch.float64
        assert threat.contains(made, victim.images, tolerance=1e-12).all()
        assert (victim.objective(victim(made)) > 0).tolist() == [succeeds] * len(made)


@pytest.mark.parametrize("random_start", [True, False])
def test_the_best_corner_of_ball_and_box_is_found_for_a_linear_function(random_start: bool) -> None:
    # each coordinate goes to the end of [x - eps, x + eps] inside [0, 1] that its weight prefers
    images = torch.rand(3, 3, 4, 5, generator=fresh(1), dtype=torch.float64).round(decimals=1)
    weight = torch.randn(3, 4, 5, generator=fresh(2), dtype=torch.float64)
    low, high = (images - 0.3).clamp(min=0), (images + 0.3).clamp(max=1)
    best = torch.maximum(low * weight, high * weight).flatten(1).sum(1)
    attack = PGD(steps=10, random_start=random_start)
    f = lambda x: (x * weight).flatten(1).sum(1)  # noqa: E731
    made = attack(f, images, Total([]), Threat(eps=0.3), generator=fresh())
    assert torch.allclose(f(made), best)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_same_generator_gives_the_same_images_and_another_seed_others(norm: str, dtype: torch.dtype) -> None:
    images = torch.rand(3, 3, 4, 6, generator=fresh(), dtype=dtype)
    before = images.clone()
    threat = Threat(eps=0.1, norm=norm)
    made = [PGD(steps=5, restarts=2)(wavy, images, Total([]), threat, generator=fresh(seed)) for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    assert torch.equal(images, before) and made[0].dtype == dtype
    assert not any(m.requires_grad for m in made) and not images.requires_grad


def test_images_that_require_a_gradient_get_none_and_give_none() -> None:
    images = torch.rand(2, 3, 3, 3, generator=fresh()).requires_grad_(True)
    attack = PGD(steps=2)
    made = attack(wavy, images, Total([]), WHOLE, generator=fresh())
    (moved,) = attack.joint(wavy, [images], Total([]), [WHOLE], generator=fresh())
    assert not made.requires_grad and not moved.requires_grad and images.grad is None


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_returned_iterate_is_the_best_one_visited(norm: str) -> None:
    images = torch.rand(4, 3, 3, 5, generator=fresh(), dtype=torch.float64)
    record: list[Tensor] = []
    attack = PGD(steps=7, step_size=0.9, restarts=3)
    made = attack(wavy, images, Total(record), Threat(eps=0.2, norm=norm), generator=fresh())
    visited = torch.stack(record)
    assert len(visited) == 3 * (7 + 1)  # steps gradients and one more forward a restart
    assert torch.equal(wavy(made), visited.amax(0))
    assert (visited.amax(0) > visited[-1]).any()


def test_without_best_the_last_iterate_is_returned_and_no_forward_is_spent_on_judging_it() -> None:
    images = torch.rand(4, 3, 3, 5, generator=fresh(), dtype=torch.float64)
    threat, record, longer = Threat(eps=0.2), [], []
    made = PGD(steps=7, best=False)(wavy, images, Total(record), threat, generator=fresh())
    PGD(steps=7)(wavy, images, Total(longer), threat, generator=fresh())
    assert len(record) == 7
    assert torch.equal(wavy(made), longer[-1])


def test_more_steps_and_more_restarts_from_the_same_starts_never_lose() -> None:
    images = torch.rand(6, 3, 3, 5, generator=fresh(), dtype=torch.float64)
    threat = Threat(eps=0.2)

    def reached(**options: int) -> Tensor:
        return wavy(PGD(step_size=0.9, **options)(wavy, images, Total([]), threat, generator=fresh()))

    for heights in (
        [reached(steps=steps) for steps in (1, 2, 4, 8, 16)],
        [reached(steps=3, restarts=restarts) for restarts in (1, 2, 3, 5)],
    ):
        assert all((later >= earlier).all() for earlier, later in pairwise(heights))
        assert (heights[-1] > heights[0]).any()


def test_a_wider_threat_never_loses_for_a_linear_function(make_linear: Callable[..., Any]) -> None:
    victim = make_linear((3, 3, 4, 4), "linf", 0.1)
    heights = [
        victim(PGD(steps=30)(victim, victim.images, victim.objective, Threat(eps=eps), generator=fresh()))
        for eps in (0.01, 0.02, 0.1, 0.3, 1.0)
    ]
    assert all((later > earlier).all() for earlier, later in pairwise(heights))


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_stopping_gives_the_flags_of_the_full_run_when_images_leave_at_different_steps(
    norm: str, random_start: bool, restarts: int, make_linear: Callable[..., Any]
) -> None:
    reach = torch.tensor([0.2, 0.5, 0.9, 1.1, -0.3, 0.7], dtype=torch.float64)  # of eps; below 0: wrong from the start
    options = {"steps": 8, "step_size": 0.25, "restarts": restarts, "random_start": random_start}
    threat = Threat(eps=0.1, norm=norm)
    full, early = (make_linear((6, 3, 2, 5), norm, reach * 0.1) for _ in range(2))
    slow = PGD(**options)(full, full.images, full.objective, threat, generator=fresh())
    quick = PGD(**options, stop=True)(early, early.images, early.objective, threat, generator=fresh())
    flags = [(full.objective(full(made)) > 0).tolist() for made in (slow, quick)]
    assert flags[0] == flags[1] == [True, True, True, False, True, True]
    assert torch.allclose(quick[3], slow[3], atol=1e-12)  # who never leaves is attacked as in the full run
    assert len(set(early.seen[:-1])) > 2 and sum(early.seen) < sum(full.seen)
    assert threat.contains(quick, early.images, tolerance=1e-12).all()


def test_stopping_with_restarts_gives_the_flags_of_the_full_run_on_a_rugged_function() -> None:
    images = torch.rand(24, 3, 2, 3, generator=fresh(), dtype=torch.float64)
    threat, counts = Threat(eps=0.08), {}

    def run(stop: bool) -> Tensor:
        counts[stop] = 0

        def f(x: Tensor) -> Tensor:
            counts[stop] += len(x)
            return wavy(x) - wavy(images).mean() - 18

        attack = PGD(steps=4, restarts=4, stop=stop)
        return f(attack(f, images, Total([]), threat, generator=fresh())) > 0

    full, early = run(False), run(True)
    assert full.tolist() == early.tolist() and 0 < full.sum() < 24
    assert counts[True] < counts[False]


def test_when_all_images_leave_the_attack_ends(make_linear: Callable[..., Any]) -> None:
    victim = make_linear((3, 3, 4, 4), "linf", -0.2)
    attack = PGD(steps=50, restarts=4, stop=True)
    made = attack(victim, victim.images, victim.objective, WHOLE, generator=fresh())
    assert victim.seen == [3]  # one look at the start was enough
    assert (victim.objective(victim(made)) > 0).all()


def test_without_a_random_start_the_first_iterate_is_the_image() -> None:
    images = torch.rand(2, 3, 3, 4, generator=fresh(), dtype=torch.float64)
    record: list[Tensor] = []
    PGD(steps=2, random_start=False)(wavy, images, Total(record), WHOLE, generator=fresh())
    assert torch.equal(record[0], wavy(images))


def test_parameters_keep_their_gradients_and_flags() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 1))
    model[1].bias.requires_grad_(False)
    model[3].weight.grad = torch.ones(1, 5)
    images = torch.rand(2, 3, 2, 2, generator=fresh())
    f = lambda x: model(x)[:, 0]  # noqa: E731
    PGD(steps=3)(f, images, Total([]), WHOLE, generator=fresh())
    PGD(steps=3).joint(f, [images], Total([]), [WHOLE], generator=fresh())
    assert torch.equal(model[3].weight.grad, torch.ones(1, 5))
    assert model[1].weight.grad is None and model[1].bias.grad is None and model[3].bias.grad is None
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_where_the_gradient_is_zero_the_start_stays(norm: str) -> None:
    images = torch.rand(2, 3, 3, 3, generator=fresh(), dtype=torch.float64)
    threat = Threat(eps=0.1, norm=norm)
    flat = lambda x: (x * 0).flatten(1).sum(1)  # noqa: E731
    start = threat.random_start(images, ImageNoise.drawn(fresh(), 2, images.device), 0)
    made = PGD(steps=5)(flat, images, Total([]), threat, generator=fresh())
    (moved,) = PGD(steps=5).joint(flat, [images], Total([]), [threat], generator=fresh())
    assert torch.equal(made, start) and torch.allclose(moved, start, atol=1e-15)


def test_a_value_that_is_not_a_number_is_never_returned() -> None:
    images = torch.full((2, 3, 2, 2), 0.5, dtype=torch.float64)
    broken = lambda x: torch.where(x.flatten(1).sum(1) > 6.05, math.nan, x.flatten(1).sum(1))  # noqa: E731
    made = PGD(steps=5, random_start=False)(broken, images, Total([]), WHOLE, generator=fresh())
    assert WHOLE.contains(made, images).all() and broken(made).isfinite().all()


@pytest.mark.parametrize("random_start", [True, False])
def test_the_joint_attack_moves_both_inputs_to_the_optimum_of_their_own_threats(random_start: bool) -> None:
    images = 0.4 + 0.2 * torch.rand(3, 3, 2, 4, generator=fresh(1), dtype=torch.float64)
    texts = torch.randn(5, 6, generator=fresh(2), dtype=torch.float64)
    pixel_weight = torch.randn(3, 2, 4, generator=fresh(3), dtype=torch.float64)
    text_weight = torch.randn(5, 6, generator=fresh(4), dtype=torch.float64)
    threats = [Threat(eps=0.1), Threat(eps=2e-4, low=-math.inf, high=math.inf)]

    def f(x: Tensor, t: Tensor) -> Tensor:
        return (x * pixel_weight).flatten(1).sum(1) + (t * text_weight).sum()

    made = PGD(steps=10, random_start=random_start).joint(f, [images, texts], Total([]), threats, generator=fresh())
    assert torch.allclose(made[0], images + 0.1 * pixel_weight.sign())
    assert torch.allclose(made[1], texts + 2e-4 * text_weight.sign(), atol=1e-15)
    assert not any(x.requires_grad for x in made)


def test_the_joint_attack_stays_inside_both_threats_and_repeats() -> None:
    images, texts = torch.rand(3, 3, 3, 3, generator=fresh(1)), torch.randn(4, 5, generator=fresh(2))
    threats = [Threat(eps=1 / 255), Threat(eps=2e-4, norm="l2", low=-math.inf, high=math.inf)]
    f = lambda x, t: wavy(x) + (5e3 * t).sin().sum()  # noqa: E731
    attack = PGD(steps=3, step_size=1.0)
    made, again, other = (
        attack.joint(f, [images, texts], Total([]), threats, generator=fresh(seed)) for seed in (0, 0, 1)
    )
    for x, centre, threat in zip(made, (images, texts), threats, strict=True):
        assert threat.contains(x, centre).all()
        assert (x != centre).flatten(1).any(1).all()
    assert all(torch.equal(x, y) for x, y in zip(made, again, strict=True))
    assert not torch.equal(made[0], other[0])


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": -3},
        {"restarts": 0},
        {"step_size": 0.0},
        {"step_size": math.nan},
        {"step_size": math.inf},
        {"momentum": -1.0},
        {"momentum": math.nan},
    ],
)
def test_impossible_schedules_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^PGD has (steps .* step_size|restarts .* restarts start at 1)"):
        PGD(**options)


@pytest.mark.parametrize("options", [{"momentum": 1.0}, {"restarts": 2}, {"targets": 3}, {"stop": True}])
def test_the_joint_attack_refuses_what_it_does_not_do(options: dict[str, Any]) -> None:
    images = torch.rand(2, 3, 3, 3, generator=fresh())
    with pytest.raises(ValueError, match=r"; the training attack is one plain ascent: leave all four as they are by d"):
        PGD(**options).joint(wavy, [images], Total([]), [WHOLE], generator=fresh())


def test_stopping_without_best_is_refused_and_names_say_what_ran() -> None:
    with pytest.raises(ValueError, match=r"^PGD has stop without best; .*: set best=True\.$"):
        PGD(stop=True, best=False)
    assert [PGD().name, PGD(steps=5, restarts=3).name, PGD(targets=9).name, PGD(momentum=1.0).name] == [
        "pgd-20",
        "pgd-5x3",
        "pgd-t9-20",
        "mi-pgd-20",
    ]
