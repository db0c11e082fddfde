"""The certified radius is sound against dense searches, and tight where theory says so."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from robustree.geometry import hyperplane_certificate, pairwise_distance


def world(depth: float, curvature: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Fifty points and five prototypes of unequal norms in three dimensions, with the predicted labels."""
    size = depth / 2 / math.sqrt(curvature)
    spread = 0.6 + 0.4 * torch.rand(5, 1, generator=generator, dtype=torch.float64)
    prototypes = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    prototypes = size * spread * prototypes / prototypes.norm(dim=1, keepdim=True)
    points = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    points = (
        size * torch.rand(50, 1, generator=generator, dtype=torch.float64) * points / points.norm(dim=1, keepdim=True)
    )
    labels = pairwise_distance(points, prototypes, curvature=curvature).argmin(dim=1)
    return points, prototypes, labels


def flipped(points: Tensor, prototypes: Tensor, labels: Tensor, curvature: float) -> Tensor:
    distances = pairwise_distance(points, prototypes, curvature=curvature)
    return distances.argmin(dim=1) != labels


def smallest_flip(
    points: Tensor, prototypes: Tensor, labels: Tensor, curvature: float, generator: torch.Generator
) -> Tensor:
    """Return the norm of the smallest flipping perturbation of each point over 400 rays."""
    rays = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    rays = rays / rays.norm(dim=1, keepdim=True)
    start = points[:, None].expand(-1, len(rays), -1)
    many = labels[:, None].expand(-1, len(rays)).flatten()

    def flips(length: Tensor) -> Tensor:
        moved = (start + length[..., None] * rays).flatten(0, 1)
        return flipped(moved, prototypes, many, curvature).reshape(length.shape)

    reach = 2 * points.norm(dim=1).max() + 2 * prototypes.norm(dim=1).max()
    found = torch.full(start.shape[:2], math.inf, dtype=torch.float64)
    for share in torch.linspace(1, 0.02, 50).tolist():
        length = torch.full_like(found, share * reach.item())
        found = torch.where(flips(length), length, found)
    lower, upper = torch.zeros_like(found), found
    for _ in range(30):
        middle = torch.where(upper.isfinite(), (lower + upper) / 2, 0.0)
        hit = flips(middle)
        lower, upper = torch.where(hit, lower, middle), torch.where(hit, middle, upper)
    return upper.amin(dim=1)


@pytest.mark.parametrize("curvature", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("depth", [0.2, 1.0, 4.0, 6.0])
def test_never_above_the_smallest_flip(depth: float, curvature: float, generator: torch.Generator) -> None:
    points, prototypes, labels = world(depth, curvature, generator)
    radius = hyperplane_certificate(points, prototypes, labels, curvature=curvature)
    assert (radius > 0).all()
    smallest = smallest_flip(points, prototypes, labels, curvature, generator)
    assert (radius <= smallest).all()
    tightness = (radius / smallest).median()
    assert tightness >= {0.2: 0.9, 1.0: 0.8, 4.0: 0.4, 6.0: 0.3}[depth]


def test_gradient_steps_of_the_certified_length_do_not_flip(generator: torch.Generator) -> None:
    points, prototypes, labels = world(2.0, 1.0, generator)
    radius = hyperplane_certificate(points, prototypes, labels, curvature=1.0)[:, None]
    delta = torch.zeros_like(points)
    for _ in range(50):
        delta.requires_grad_()
        distances = pairwise_distance(points + delta, prototypes, curvature=1.0)
        own = distances.gather(1, labels[:, None])
        rival = distances.scatter(1, labels[:, None], math.inf).amin(dim=1, keepdim=True)
        (gradient,) = torch.autograd.grad((own - rival).sum(), delta)
        delta = (delta + 0.3 * radius * gradient / gradient.norm(dim=1, keepdim=True)).detach()
        delta = delta * (radius / delta.norm(dim=1, keepdim=True)).clamp(max=1) * (1 - 1e-12)
        assert not flipped(points + delta, prototypes, labels, 1.0).any()


def test_points_at_the_origin_of_two_opposite_classes_have_the_exact_radius() -> None:
    """The boundary between +p and -p is the plane through the origin, at distance v_0 from v."""
    prototypes = torch.tensor([[1.5, 0.0], [-1.5, 0.0]])
    points = torch.tensor([[0.02, 0.0], [0.0, 0.3], [-0.1, 0.0]])
    radius = hyperplane_certificate(points, prototypes, torch.tensor([0, 0, 0]), curvature=1.0)
    assert radius[0].item() == pytest.approx(0.02, rel=1e-2)
    assert radius[0].item() <= 0.02
    assert radius[1:].tolist() == [0.0, 0.0]


def test_coincident_prototypes_certify_nothing_and_a_single_class_everything() -> None:
    twins = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert hyperplane_certificate(twins[:1], twins, torch.tensor([0]), curvature=1.0).tolist() == [0.0]
    assert hyperplane_certificate(twins[:1], twins[:1], torch.tensor([0]), curvature=1.0).tolist() == [math.inf]
