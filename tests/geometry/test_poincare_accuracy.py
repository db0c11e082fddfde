"""Distances and midpoints against sixty-digit arithmetic on the rounded inputs."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import mpmath
import pytest
import torch
from torch import Tensor

from robustree.geometry import distance, einstein_midpoint, exp0, log0, pairwise_distance

CURVATURES = [0.05, 0.1, 1.0, 4.0]
DEPTHS = [1e-6, 1e-3, 0.1, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0]
DIMENSION = 48

mpmath.mp.dps = 60
Number: TypeAlias = Any  # mpmath has no types
Point: TypeAlias = list[Number]


def exact_lift(v: Tensor, curvature: float) -> Point:
    """Return sqrt(r) times the hyperboloid point of one tangent vector (D,): [cosh 2a, sinh(2a) u...]."""
    values = [mpmath.mpf(x) for x in v.double().tolist()]
    norm = mpmath.sqrt(mpmath.fsum(x * x for x in values))
    if norm == 0:
        return [mpmath.mpf(1), *values]
    a = mpmath.sqrt(mpmath.mpf(curvature)) * norm
    return [mpmath.cosh(2 * a), *(mpmath.sinh(2 * a) * x / norm for x in values)]


def exact_gap(x: Point, y: Point, curvature: float) -> Number:
    """Return the distance of two lifted points."""
    excess = x[0] * y[0] - mpmath.fdot(x[1:], y[1:]) - 1
    if excess < mpmath.mpf(10) ** -40:  # sixty digits of cosh(16)^2 and less leave this noise at coincidence
        return mpmath.mpf(0)
    return mpmath.acosh(1 + excess) / mpmath.sqrt(mpmath.mpf(curvature))


def exact_distance(u: Tensor, v: Tensor, curvature: float) -> Number:
    """Return d_r of two tangent vectors (D,)."""
    return exact_gap(exact_lift(u, curvature), exact_lift(v, curvature), curvature)


def exact_midpoint(v: Tensor, weights: list[float], curvature: float) -> Point:
    """Return the lifted Einstein midpoint of tangent vectors (n, D)."""
    points = [exact_lift(row, curvature) for row in v]
    total = [mpmath.fdot(weights, coordinate) for coordinate in zip(*points, strict=True)]
    length = mpmath.sqrt(total[0] ** 2 - mpmath.fdot(total[1:], total[1:]))
    return [x / length for x in total]


def unit(generator: torch.Generator) -> Tensor:
    x = torch.randn(DIMENSION, generator=generator, dtype=torch.float64)
    return x / x.norm()


def pairs_at(depth: float, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Pairs of a point at `depth` and a far, near, collinear, antipodal or central one."""
    rho = depth / 2
    u, w = unit(generator), unit(generator)
    rotated = [((1 - angle**2) ** 0.5 * u + angle * w) for angle in (0.3, 1e-2, 1e-4, 1e-6)]
    return [
        (rho * u, rho * w),
        (rho * u, 0.4 * rho * w),
        *((rho * u, rho * x) for x in rotated),
        (rho * u, rho * (1 + 3e-7) * u),
        (rho * u, 0.5 * rho * u),
        (rho * u, 1.0 * u),
        (rho * u, -rho * u),
        (rho * u, -0.1 * rho * u),
        (rho * u, 0 * u),
    ]


def relative_errors(dtype: torch.dtype, curvature: float, generator: torch.Generator) -> tuple[float, float]:
    """Return the largest relative error of pairwise_distance and of distance."""
    worst = [0.0, 0.0]
    for depth in DEPTHS:
        first, second = zip(*pairs_at(depth, generator), strict=True)
        u, v = torch.stack(first).to(dtype), torch.stack(second).to(dtype)
        found = (
            pairwise_distance(u, v, curvature=curvature).diagonal(),
            distance(u, v, curvature=curvature),
        )
        for row in range(len(u)):
            truth = exact_distance(u[row], v[row], curvature)
            for form, values in enumerate(found):
                value = values[row].item()
                error = abs(value - truth) / truth if truth else abs(value)
                worst[form] = max(worst[form], float(error))
    return worst[0], worst[1]


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_distances_lose_no_more_than_rounding(dtype: torch.dtype, curvature: float, generator: torch.Generator) -> None:
    assert max(relative_errors(dtype, curvature, generator)) <= 1e-7


@pytest.mark.parametrize("curvature", CURVATURES)
def test_float64_distances_keep_seven_digits_and_more(curvature: float, generator: torch.Generator) -> None:
    pairwise, row_wise = relative_errors(torch.float64, curvature, generator)
    assert pairwise <= 3e-8
    assert row_wise <= 5e-9


def test_width_of_clip(generator: torch.Generator) -> None:
    u = 1.5 * torch.nn.functional.normalize(torch.randn(3, 512, generator=generator))
    v = torch.cat([u * 0.7, u + 1e-5 * torch.randn(3, 512, generator=generator)])
    found = pairwise_distance(u, v, curvature=1.0)
    for i in range(len(u)):
        for j in range(len(v)):
            truth = exact_distance(u[i], v[j], 1.0)
            assert abs(found[i, j].item() - truth) <= 1e-7 * truth


def test_very_deep_points_stay_finite_and_right(generator: torch.Generator) -> None:
    for norm in (20.0, 40.0, 80.0, 170.0):
        v = norm * torch.stack([unit(generator), unit(generator)]).float()
        v.requires_grad_()
        found = pairwise_distance(v[:1], v[1:], curvature=1.0)
        truth = exact_distance(v[0].detach(), v[1].detach(), 1.0)
        assert abs(found.item() - truth) <= 1e-7 * truth
        found.sum().backward()
        assert v.grad is not None
        assert v.grad.isfinite().all()
        radial = (v.grad * v).sum(dim=1) / v.norm(dim=1)
        torch.testing.assert_close(radial.detach(), torch.full((2,), 2.0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("depth", [1e-6, 0.1, 1.0, 4.0, 6.0, 8.0])
def test_midpoints_lie_on_the_exact_midpoint(depth: float, curvature: float, generator: torch.Generator) -> None:
    """The distance to the exact midpoint is rounding, magnified by exp(depth) as for every deep point."""
    rho = depth / 2
    base = unit(generator)
    siblings = torch.stack([base + 0.3 * unit(generator) for _ in range(3)])
    twins = torch.stack([base + 1e-6 * unit(generator) for _ in range(3)])
    unequal = torch.stack([scale * unit(generator) for scale in (0.2, 0.7, 1.0)])
    weights = [1.0, 2.5, 0.5]
    for family in (siblings, twins, unequal):
        v = rho * family / family.norm(dim=1).max()
        found = einstein_midpoint(v, torch.tensor([weights]), curvature=curvature)[0]
        truth = exact_midpoint(v, weights, curvature)
        off = exact_gap(exact_lift(found, curvature), truth, curvature)
        assert off <= 1e-14 * depth * math.exp(curvature**0.5 * depth)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_the_midpoint_of_one_point_is_the_point(curvature: float, generator: torch.Generator) -> None:
    for depth in (0.0, 1e-6, 0.1, 2.0, 4.0, 8.0):
        v = (depth / 2 * unit(generator)).float()[None]
        for weight in (1.0, 7.0):
            found = einstein_midpoint(v, torch.tensor([[weight]]), curvature=curvature)
            torch.testing.assert_close(found, v, rtol=2e-7, atol=0)


def test_exponential_map_in_float32(generator: torch.Generator) -> None:
    for curvature in CURVATURES:
        for a in (1e-6, 9e-4, 1.1e-3, 0.1, 1.0, 3.0):
            v = (a / curvature**0.5 * unit(generator)).float()
            wide = v.double() * torch.tanh(curvature**0.5 * v.double().norm()) / (curvature**0.5 * v.double().norm())
            torch.testing.assert_close(exp0(v, curvature=curvature), wide.float(), rtol=1.3e-7, atol=0)
            back = log0(exp0(v.double(), curvature=curvature), curvature=curvature)
            torch.testing.assert_close(back, v.double(), rtol=1e-11, atol=0)
