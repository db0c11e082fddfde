"""Identities of the ball, other implementations as oracles, and gradients."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.geometry import (
    bound_norm,
    depth,
    distance,
    einstein_midpoint,
    exp0,
    log0,
    lorentz,
    pairwise_distance,
)

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)  # the oracle's own
    import geoopt

CURVATURES = [0.05, 0.1, 1.0, 4.0]
MAGNITUDES = [0.0, 1e-8, 1e-4, 0.1, 1.0, 2.0, 4.0, 8.0]


def points(count: int, curvature: float, generator: torch.Generator, dimension: int = 6) -> Tensor:
    """Tangent vectors with sqrt(r)|v| uniform in [0, 2]."""
    v = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    norms = 2 * torch.rand(count, 1, generator=generator, dtype=torch.float64) / math.sqrt(curvature)
    return v / v.norm(dim=1, keepdim=True) * norms


@pytest.mark.parametrize("curvature", CURVATURES)
def test_metric_axioms_and_depth(curvature: float, generator: torch.Generator) -> None:
    v = points(40, curvature, generator)
    d = pairwise_distance(v, v, curvature=curvature)
    torch.testing.assert_close(d, d.T, rtol=1e-7, atol=0)
    assert (d.diagonal() < 1e-150).all()
    assert (d[:, None, :] <= d[:, :, None] + d[None, :, :] + 1e-12).all()
    origin = torch.zeros_like(v)
    torch.testing.assert_close(distance(v, origin, curvature=curvature), depth(v), rtol=1e-12, atol=0)
    torch.testing.assert_close(depth(v), 2 * v.norm(dim=1))


@pytest.mark.parametrize("curvature", CURVATURES)
def test_row_wise_and_pairwise_agree(curvature: float, generator: torch.Generator) -> None:
    u, v = points(30, curvature, generator), points(20, curvature, generator)
    torch.testing.assert_close(
        pairwise_distance(u, v, curvature=curvature),
        distance(u[:, None], v[None], curvature=curvature),
        rtol=1e-10,
        atol=0,
    )


@pytest.mark.parametrize("curvature", CURVATURES)
def test_unit_covariance(curvature: float, generator: torch.Generator) -> None:
    u, v = points(20, curvature, generator), points(20, curvature, generator)
    root = math.sqrt(curvature)
    unit = distance(root * u, root * v, curvature=1.0) / root
    torch.testing.assert_close(distance(u, v, curvature=curvature), unit, rtol=1e-12, atol=0)
    pair = pairwise_distance(root * u, root * v, curvature=1.0) / root
    torch.testing.assert_close(pairwise_distance(u, v, curvature=curvature), pair, rtol=1e-9, atol=0)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_log_inverts_exp(curvature: float, generator: torch.Generator) -> None:
    v = points(20, curvature, generator)
    x = exp0(v, curvature=curvature)
    assert (x.norm(dim=1) < 1 / math.sqrt(curvature)).all()
    torch.testing.assert_close(log0(x, curvature=curvature), v, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_lorentz_twin(curvature: float, generator: torch.Generator) -> None:
    u, v = points(30, curvature, generator), points(30, curvature, generator)
    lifted_u, lifted_v = lorentz.lift(u, curvature=curvature), lorentz.lift(v, curvature=curvature)
    product = lorentz.minkowski_product(lifted_u, lifted_u)
    torch.testing.assert_close(product, torch.full_like(product, -1 / curvature), rtol=1e-10, atol=0)
    torch.testing.assert_close(lorentz.drop(lifted_u, curvature=curvature), u, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        lorentz.distance(lifted_u, lifted_v, curvature=curvature),
        distance(u, v, curvature=curvature),
        rtol=1e-9,
        atol=0,
    )
    weights = torch.rand(5, 30, generator=generator, dtype=torch.float64)
    centroid = lorentz.drop(lorentz.centroid(lifted_u, weights, curvature=curvature), curvature=curvature)
    torch.testing.assert_close(einstein_midpoint(u, weights, curvature=curvature), centroid, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_geoopt_as_oracle(curvature: float, generator: torch.Generator) -> None:
    u, v = points(30, curvature, generator), points(30, curvature, generator)
    exact_curvature: Any = torch.tensor(curvature, dtype=torch.float64)  # a float would become float32
    ball = geoopt.PoincareBall(c=exact_curvature)
    x, y = exp0(u, curvature=curvature), exp0(v, curvature=curvature)
    torch.testing.assert_close(x, ball.expmap0(u), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(distance(u, v, curvature=curvature), ball.dist(x, y), rtol=1e-6, atol=0)
    weights = torch.rand(30, generator=generator, dtype=torch.float64)
    midpoint = einstein_midpoint(u, weights[None], curvature=curvature)[0]
    torch.testing.assert_close(
        exp0(midpoint, curvature=curvature), ball.weighted_midpoint(x, weights), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("curvature", CURVATURES)
def test_parents_are_no_deeper_than_their_deepest_child(curvature: float, generator: torch.Generator) -> None:
    for _ in range(100):
        v = points(5, curvature, generator)
        weights = torch.rand(1, 5, generator=generator)
        assert depth(einstein_midpoint(v, weights, curvature=curvature)) <= depth(v).max() + 1e-12
        level = v / v.norm(dim=1, keepdim=True)
        assert einstein_midpoint(level, weights, curvature=curvature).norm() <= 1 + 1e-12


def test_unequal_children_mostly_have_a_parent_deeper_than_the_shallowest(generator: torch.Generator) -> None:
    deeper = 0
    for _ in range(400):
        directions = torch.nn.functional.normalize(torch.randn(5, 16, generator=generator) + 2)
        v = directions * (0.3 + 2 * torch.rand(5, 1, generator=generator))
        deeper += bool(depth(einstein_midpoint(v, torch.ones(1, 5), curvature=1.0)) > depth(v).min())
    assert deeper > 280


def test_equal_prototype_depths_decide_like_the_cosine(generator: torch.Generator) -> None:
    image = torch.randn(200, 16, generator=generator, dtype=torch.float64)
    prototypes = torch.nn.functional.normalize(torch.randn(50, 16, generator=generator, dtype=torch.float64), dim=1)
    cosine = (image @ prototypes.T).argmax(dim=1)
    for norm in (0.1, 1.0, 3.0):
        hyperbolic = pairwise_distance(image, norm * prototypes, curvature=1.0).argmin(dim=1)
        assert torch.equal(hyperbolic, cosine)
    ladder = prototypes * torch.linspace(0.1, 3.0, 50, dtype=torch.float64)[:, None]
    assert (pairwise_distance(image, ladder, curvature=1.0).argmin(dim=1) != cosine).any()


def test_midpoint_weights_are_scale_free_and_select(generator: torch.Generator) -> None:
    v = points(6, 1.0, generator)
    weights = torch.tensor([[1.0, 2, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1]])
    both = einstein_midpoint(v, weights, curvature=1.0)
    torch.testing.assert_close(both, einstein_midpoint(v, 7 * weights, curvature=1.0), rtol=1e-12, atol=1e-14)
    alone = einstein_midpoint(v[2:], torch.ones(1, 4), curvature=1.0)
    torch.testing.assert_close(both[1:], alone, rtol=1e-12, atol=1e-14)
    opposite = torch.stack([v[0], -v[0]])
    assert einstein_midpoint(opposite, torch.ones(1, 2), curvature=1.0).norm() < 1e-15
    assert torch.equal(einstein_midpoint(torch.zeros(3, 4), torch.ones(1, 3), curvature=1.0), torch.zeros(1, 4))


def test_bound_norm_is_smooth_monotone_and_bounded(generator: torch.Generator) -> None:
    direction = torch.nn.functional.normalize(torch.randn(8, generator=generator, dtype=torch.float64), dim=0)
    norms = [bound_norm(x * direction, 2.0).norm().item() for x in (0.0, 1e-4, 0.5, 2.0, 10.0, 1e3)]
    assert norms[1] == pytest.approx(1e-4, rel=1e-8)
    assert norms[3] == pytest.approx(2 * math.tanh(1.0), rel=1e-12)
    assert all(a <= b <= 2.0 for a, b in pairwise(norms))


@pytest.mark.parametrize("curvature", CURVATURES)
def test_gradcheck(curvature: float, generator: torch.Generator) -> None:
    u = points(3, curvature, generator, 4).requires_grad_()
    v = points(2, curvature, generator, 4).requires_grad_()
    weights = torch.tensor([[1.0, 0, 2], [0.5, 1, 1]], dtype=torch.float64)
    check = torch.autograd.gradcheck
    assert check(lambda u, v: pairwise_distance(u, v, curvature=curvature), (u, v))
    assert check(lambda u, v: distance(u[:2], v, curvature=curvature), (u, v))
    assert check(lambda u: einstein_midpoint(u, weights, curvature=curvature), (u,))
    assert check(lambda u: exp0(u, curvature=curvature), (u,))
    assert check(lambda u: log0(u * 0.2, curvature=curvature), (u,))
    assert check(depth, (u,))
    assert check(lambda u: bound_norm(u, 1.5), (u,))


def test_gradcheck_at_the_origin(generator: torch.Generator) -> None:
    """Away from coincidence the distance is smooth at the origin, and so is its gradient."""
    zero = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    v = points(3, 1.0, generator, 4)
    assert torch.autograd.gradcheck(lambda u: pairwise_distance(u, v, curvature=1.0), (zero,))
    assert torch.autograd.gradcheck(lambda u: distance(u, v, curvature=1.0), (zero,))
    assert torch.autograd.gradcheck(
        lambda u: einstein_midpoint(torch.cat([u, v]), torch.ones(1, 4), curvature=1.0), (zero,)
    )
    (gradient,) = torch.autograd.grad(distance(zero[0], v[0], curvature=1.0), zero)
    torch.testing.assert_close(gradient[0], -2 * v[0] / v[0].norm(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_are_finite_everywhere(curvature: float, dtype: torch.dtype, generator: torch.Generator) -> None:
    for magnitude in MAGNITUDES:
        v = torch.nn.functional.normalize(torch.randn(4, 8, generator=generator), dim=1) * magnitude
        other = torch.cat([v, v * (1 + 1e-7), -v, 0 * v, v.flip(0)]).to(dtype).requires_grad_()
        v = v.to(dtype).requires_grad_()
        weights = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]])
        outputs = [
            pairwise_distance(v, other, curvature=curvature),
            distance(v[:, None], other[None], curvature=curvature),
            einstein_midpoint(v, weights, curvature=curvature),
            exp0(v, curvature=curvature),
            depth(v),
            bound_norm(v, 2.0),
        ]
        for output in outputs:
            assert output.isfinite().all()
            for gradient in torch.autograd.grad(output.sum(), (v, other), allow_unused=True):
                assert gradient is None or gradient.isfinite().all()


def test_gradient_at_coincidence_is_zero() -> None:
    v = torch.tensor([[0.3, -0.2], [4.0, 1.0], [0.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(distance(v, v.detach(), curvature=1.0).sum(), v)
    assert torch.equal(gradient, torch.zeros_like(v))
    (gradient,) = torch.autograd.grad(pairwise_distance(v, v.detach(), curvature=1.0).diagonal().sum(), v)
    assert torch.equal(gradient, torch.zeros_like(v))


def test_distances_backpropagate_their_slope_of_two_at_every_depth(generator: torch.Generator) -> None:
    """Ball codes lose this radial slope from depth 6 on: clamped points have no radial gradient."""
    for norm in (0.5, 3.0, 8.0, 20.0):
        v = torch.zeros(1, 8)
        v[0, 0] = norm
        v.requires_grad_()
        (gradient,) = torch.autograd.grad(pairwise_distance(v, -v.detach(), curvature=1.0).sum(), v)
        assert gradient[0, 0].item() == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize("curvature", [0.0, -1.0, math.inf, math.nan])
def test_bad_curvature(curvature: float) -> None:
    v = torch.ones(1, 2)
    for call in (
        lambda: exp0(v, curvature=curvature),
        lambda: pairwise_distance(v, v, curvature=curvature),
        lambda: einstein_midpoint(v, v[:, :1], curvature=curvature),
        lambda: lorentz.lift(v, curvature=curvature),
    ):
        with pytest.raises(ValueError, match="curvature is"):
            call()


def test_bad_input() -> None:
    v = torch.ones(2, 3)
    with pytest.raises(ValueError, match="must be below 1"):
        log0(v, curvature=1.0)
    with pytest.raises(ValueError, match="limit is 0"):
        bound_norm(v, 0.0)
    with pytest.raises(ValueError, match=r"\(B, D\) and \(K, D\)"):
        pairwise_distance(v, v[0], curvature=1.0)
    with pytest.raises(ValueError, match="row 1 are all zero"):
        einstein_midpoint(v, torch.tensor([[1.0, 1.0], [0.0, 0.0]]), curvature=1.0)
    with pytest.raises(ValueError, match="go down to -1"):
        einstein_midpoint(v, torch.tensor([[2.0, -1.0]]), curvature=1.0)
    with pytest.raises(ValueError, match=r"\(m, n\)"):
        einstein_midpoint(v, torch.ones(1, 3), curvature=1.0)
    with pytest.raises(ValueError, match="must be constants"):
        einstein_midpoint(v, torch.ones(1, 2, requires_grad=True), curvature=1.0)
