"""The Poincare ball of curvature -r, written on tangent vectors.

A point is stored as its tangent vector v at the origin, shape (..., D); its ball coordinates are exp_0(v),
|x|^2 < 1/r. Ball coordinates lose the boundary (in float32 the gap 1 - r|x|^2 is 1 % wrong at depth 12),
tangent vectors do not. Notation: r is `curvature` > 0, a = sqrt(r)|v|, u = v/|v|. The convention is d(0,
exp_0(v)) = 2|v|, as in geoopt and Ganea et al. (2018); Lorentz codes such as MERU use |v|.

Every function computes in float64 outside autocast and returns float32, or float64 for a float64 argument.
The relative error of a distance is at most 1e-7 in float32 and 3e-8 in float64 (row-wise: 5e-9), for depths
up to 8 and sqrt(r)|v| up to 8, near pairs included. Distances are finite while the two values of a sum to at
most 350; gradients are finite everywhere, and 0 at coincident points.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustree.geometry.numerics import (
    checked_curvature,
    checked_pairs,
    checked_weights,
    guarded_sqrt,
    pairwise_square_gap,
    precision_island,
)

SERIES_BELOW = 1e-3
BISECTIONS = 60


@precision_island
def exp0(v: Tensor, *, curvature: float) -> Tensor:
    """Map tangent vectors to ball coordinates: exp_0(v) = tanh(a) v / a.

    v (..., D) -> (..., D). float32 results reach the boundary |x| = 1/sqrt(r) from a = 9: an output format,
    not for further geometry.
    """
    return v * _tanhc(math.sqrt(checked_curvature(curvature)) * _norm(v))


@precision_island
def log0(x: Tensor, *, curvature: float) -> Tensor:
    """Map ball coordinates to tangent vectors: log_0(x) = artanh(sqrt(r)|x|) x / (sqrt(r)|x|).

    x (..., D) -> (..., D). Raises ValueError when a point is not inside the ball.
    """
    norm = math.sqrt(checked_curvature(curvature)) * _norm(x)
    if bool((norm >= 1).any()):
        raise ValueError(
            f"sqrt(curvature)|x| is {norm.max().item():.9g}, it must be below 1; keep tangent vectors for deep points."
        )
    return x * _ratio(norm.atanh(), norm, 1 + norm.square() / 3 + norm.pow(4) / 5)


@precision_island
def depth(v: Tensor) -> Tensor:
    """Return the geodesic distance to the origin, 2|v|: v (..., D) -> (...), in [0, inf)."""
    return 2 * _norm(v).squeeze(-1)


@precision_island
def distance(u: Tensor, v: Tensor, *, curvature: float) -> Tensor:
    """Return the geodesic distance of u and v (..., D), broadcast against each other, as (...).

    d = (2/sqrt r) asinh(sqrt s), s = sinh^2(a-b) + sinh(2a) sinh(2b) |u/|u| - v/|v||^2/4, with a and b the
    sqrt(r)|.| of u and v.
    """
    root = math.sqrt(checked_curvature(curvature))
    u_half, u_cosh = _half_point(u, root)
    v_half, v_cosh = _half_point(v, root)
    smooth = (v_cosh[..., None] * u_half - u_cosh[..., None] * v_half).square().sum(dim=-1)
    # The same number twice: the polar form has the digits, the smooth form the gradient at the origin.
    gap = smooth + (_polar_gap(u, v, root) - smooth).detach()
    return 2 / root * guarded_sqrt(gap).asinh()


@precision_island
def pairwise_distance(u: Tensor, v: Tensor, *, curvature: float) -> Tensor:
    """Return the geodesic distances of all pairs: u (B, D), v (K, D) -> (B, K), by one matmul.

    d = (2/sqrt r) asinh(sqrt s), s = |cosh(b) sinh(a) u/|u| - cosh(a) sinh(b) v/|v||^2, which is the s of
    `distance`. Memory is O(BK). Raises ValueError unless the shapes are (B, D) and (K, D).
    """
    checked_pairs(u, v)
    root = math.sqrt(checked_curvature(curvature))
    u_half, u_cosh = _half_point(u, root)
    v_half, v_cosh = _half_point(v, root)
    gap = pairwise_square_gap(u_half, v_half, u_cosh, v_cosh, lambda i, j: _polar_gap(u[i], v[j], root))
    return 2 / root * guarded_sqrt(gap).asinh()


@precision_island
def einstein_midpoint(v: Tensor, weights: Tensor, *, curvature: float) -> Tensor:
    """Return the weighted Einstein midpoints (HypAvg): v (n, D), weights (m, n) -> (m, D).

    S = sum_i w_i sinh(2a_i) u_i, T = sum_i w_i cosh(2a_i), sinh(2a_m) = |S|/M with M^2 = (T-|S|)(T+|S|) and T
    - |S| = sum_i w_i |cosh(a_i) S/|S| - sinh(a_i) u_i|^2, a sum of positive terms. No 1/sqrt(1 - r|k|^2) of
    Klein coordinates appears. Only the positive weights are visited: scratch memory is O(D * positive
    weights). Raises ValueError for negative weights, for a row without a positive weight and for weights that
    require a gradient.
    """
    root = math.sqrt(checked_curvature(curvature))
    weights = checked_weights(v, weights)
    half, cosh = _half_point(v, root)
    space = weights @ (2 * cosh[:, None] * half)
    length = _norm(space)
    # Any unit vector serves when S = 0: T - S.e is then T.
    first_axis = torch.zeros_like(space).index_fill_(1, torch.zeros(1, dtype=torch.long, device=v.device), 1.0)
    direction = torch.where(length > 0, space / torch.where(length > 0, length, 1.0), first_axis)
    rows, columns = weights.nonzero(as_tuple=True)
    terms = (cosh[columns, None] * direction[rows] - half[columns]).square().sum(dim=1)
    gap = torch.zeros_like(length[:, 0]).index_add(0, rows, weights[rows, columns] * terms)[:, None]
    minkowski = gap.sqrt() * (gap + 2 * length).sqrt()
    sinh = length / minkowski
    series = 1 - sinh.square() / 6 + 3 * sinh.pow(4) / 40
    return space / (2 * root * minkowski) * _ratio(sinh.asinh(), sinh, series)


@precision_island
def bound_norm(v: Tensor, limit: float) -> Tensor:
    """Bound tangent norms smoothly: limit tanh(|v|/limit) v/|v|, norms at most `limit`.

    v (..., D) -> (..., D). Unlike a hard clip it keeps a radial gradient. Raises ValueError unless limit is
    finite and above 0.
    """
    if not 0.0 < limit < math.inf:
        raise ValueError(f"limit is {limit}, it must be finite and above 0; pass a tangent norm, e.g. 2.3.")
    return v * _tanhc(_norm(v) / limit)


@torch.no_grad()
@precision_island
def hyperplane_certificate(points: Tensor, prototypes: Tensor, labels: Tensor, *, curvature: float) -> Tensor:
    """Return radii (B,) of tangent-space balls on which argmin_c d(point, prototype_c) stays at the label.

    In Klein coordinates k = tanh(2a) u (unit ball) class y beats class c where k.(S_y - S_c) > T_y - T_c,
    with S = sinh(2b) p/|p|, T = cosh(2b) for a prototype p. With h the least distance of k to such a
    hyperplane, the radius is the eps that solves eps sqrt(r) tanh(2x)/x = h, x = max(0, a - sqrt(r) eps):
    tanh(2x)/x is the Lipschitz constant of the tangent-to-Klein map outside the radius x.

    points (B, D), prototypes (K, D), labels (B,) integers in [0, K). Misclassified points and ties have
    radius 0, a single class has radius inf. Carries no gradient.
    """
    root = math.sqrt(checked_curvature(curvature))
    norm = root * _norm(points).squeeze(-1)
    klein = points * (root * _lipschitz(norm))[:, None]
    half, cosh = _half_point(prototypes, root)
    space, time = 2 * cosh[:, None] * half, 2 * cosh.square()
    score = klein @ space.T - time
    score = score.gather(1, labels[:, None]) - score
    gap = torch.cdist(space[labels], space, compute_mode="donot_use_mm_for_euclid_dist")
    height = torch.where(gap > 0, score / gap, 0.0)
    height = height.scatter(1, labels[:, None], math.inf).amin(dim=1).clamp(min=0)

    lower, upper = height / (2 * root), height / (root * _lipschitz(norm))
    for _ in range(BISECTIONS):
        middle = (lower + upper) / 2
        reached = middle * root * _lipschitz((norm - root * middle).clamp(min=0)) <= height
        lower, upper = torch.where(reached, middle, lower), torch.where(reached, upper, middle)
    return lower


def _norm(v: Tensor) -> Tensor:
    return torch.linalg.vector_norm(v, dim=-1, keepdim=True)


def _ratio(numerator: Tensor, x: Tensor, series: Tensor) -> Tensor:
    """Return numerator / x, or its series where x is too small to divide by."""
    small = x < SERIES_BELOW
    return torch.where(small, series, numerator / torch.where(small, 1.0, x))


def _tanhc(x: Tensor) -> Tensor:
    return _ratio(x.tanh(), x, 1 - x.square() / 3 + 2 * x.pow(4) / 15)


def _lipschitz(x: Tensor) -> Tensor:
    return 2 * _tanhc(2 * x)


def _half_point(v: Tensor, root: float) -> tuple[Tensor, Tensor]:
    """Return sinh(a) v/|v| (..., D) and cosh(a) (...): the hyperboloid coordinates at half the distance."""
    a = root * _norm(v)
    sinhc = _ratio(a.sinh(), a, 1 + a.square() / 6 + a.pow(4) / 120)
    return v * (root * sinhc), a.cosh().squeeze(-1)


def _polar_gap(u: Tensor, v: Tensor, root: float) -> Tensor:
    """Return sinh^2(a-b) + sinh(2a) sinh(2b) |u/|u| - v/|v||^2/4 of u and v (..., D), as (...)."""
    u_norm, v_norm = _norm(u), _norm(v)
    tiny = torch.finfo(u.dtype).tiny
    chord = (u / u_norm.clamp(min=tiny) - v / v_norm.clamp(min=tiny)).square().sum(dim=-1)
    a, b = root * u_norm.squeeze(-1), root * v_norm.squeeze(-1)
    return (a - b).sinh().square() + (2 * a).sinh() * (2 * b).sinh() * chord / 4
