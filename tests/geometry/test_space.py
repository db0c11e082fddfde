"""The three spaces keep one contract."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from robustree.geometry import Euclidean, Poincare, Space, Sphere, einstein_midpoint, pairwise_distance

SPACES: list[Space] = [Poincare(), Poincare(0.1), Poincare(4.0), Euclidean(), Sphere()]


@pytest.fixture
def points(generator: torch.Generator) -> Tensor:
    return torch.randn(6, 5, generator=generator)


def test_names_belong_to_the_class() -> None:
    assert [space.name for space in (Poincare, Euclidean, Sphere)] == ["poincare", "euclidean", "sphere"]
    assert [field.name for field in dataclasses.fields(Poincare)] == ["curvature"]
    assert Poincare(0.1) == Poincare(curvature=0.1) != Poincare()


@pytest.mark.parametrize("space", SPACES)
def test_contract(space: Space, points: Tensor) -> None:
    weights = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 2, 1]])
    distances = space.pairwise_distance(points, points[:4])
    assert distances.shape == (6, 4)
    assert (distances >= -1e-7).all()
    assert (distances.diagonal().abs() <= 1e-7).all()
    assert space.midpoint(points, weights).shape == (2, 5)
    assert space.depth(points[None]).shape == (1, 6)
    alone = space.midpoint(points, torch.eye(6))
    cosine = torch.nn.functional.cosine_similarity(alone, points)
    torch.testing.assert_close(cosine, torch.ones(6), rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="all zero"):
        space.midpoint(points, 0 * weights)
    with pytest.raises(ValueError, match="must be"):
        space.pairwise_distance(points, points[0])


def test_poincare_delegates(points: Tensor) -> None:
    space = Poincare(0.1)
    assert torch.equal(space.pairwise_distance(points, points), pairwise_distance(points, points, curvature=0.1))
    weights = torch.ones(1, 6)
    assert torch.equal(space.midpoint(points, weights), einstein_midpoint(points, weights, curvature=0.1))
    assert torch.equal(space.depth(points), (2 * points.double().norm(dim=1)).float())


def test_euclidean_is_flat(points: Tensor) -> None:
    space = Euclidean()
    near = points + 1e-6 * points.flip(0)
    expected = (points[:, None].double() - near[None].double()).norm(dim=-1)
    torch.testing.assert_close(space.pairwise_distance(points, near), expected.float(), rtol=2e-7, atol=0)
    weights = torch.tensor([[3.0, 1, 0, 0, 0, 0]])
    torch.testing.assert_close(space.midpoint(points, weights)[0], 0.75 * points[0] + 0.25 * points[1])
    torch.testing.assert_close(space.depth(points), points.norm(dim=1))


def test_small_balls_are_flat_too(points: Tensor) -> None:
    """Near the origin the metric is twice the Euclidean one."""
    small = 1e-4 * points.double()
    flat = 2 * Euclidean().pairwise_distance(small, small.flip(0))
    torch.testing.assert_close(Poincare().pairwise_distance(small, small.flip(0)), flat, rtol=1e-6, atol=1e-12)


def test_sphere_is_the_cosine_head(points: Tensor) -> None:
    space = Sphere()
    cosine = torch.nn.functional.cosine_similarity(points[:, None], points[None], dim=-1)
    torch.testing.assert_close(space.pairwise_distance(points, points), 1 - cosine, rtol=0, atol=5e-7)
    torch.testing.assert_close(
        space.pairwise_distance(points, 3 * points),
        space.pairwise_distance(points, points),
        rtol=0,
        atol=1e-7,
    )
    middle = space.midpoint(points * torch.arange(1, 7)[:, None], torch.ones(1, 6))
    expected = torch.nn.functional.normalize(points, dim=1).mean(dim=0, keepdim=True)
    torch.testing.assert_close(middle, expected)


@pytest.mark.parametrize("space", SPACES)
def test_gradients_are_finite_at_zero_and_at_coincidence(space: Space, points: Tensor) -> None:
    v = torch.cat([points, torch.zeros(1, 5), 1e-8 * points[:1]]).requires_grad_()
    for output in (
        space.pairwise_distance(v, v),
        space.pairwise_distance(v, v.detach()),
        space.midpoint(v, torch.ones(2, 8)),
        space.depth(v),
    ):
        (gradient,) = torch.autograd.grad(output.sum(), v)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("space", SPACES)
def test_gradcheck(space: Space, points: Tensor) -> None:
    u = points.double().requires_grad_()
    v = points[:3].double().flip(1).requires_grad_()
    assert torch.autograd.gradcheck(space.pairwise_distance, (u, v))
    weights = torch.rand(2, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda u: space.midpoint(u, weights), (u,))


def test_bad_curvature() -> None:
    with pytest.raises(ValueError, match="curvature is -1"):
        Poincare(-1.0)
