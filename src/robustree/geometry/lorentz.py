"""The hyperboloid of curvature -r: an independent twin of `poincare`, for cross-checks only.

Points are (t, s) with t = cosh(2a)/sqrt r and s = sinh(2a) u/sqrt r, on -t^2 + |s|^2 = -1/r, always float64.
Written from the textbook formulas (Minkowski product, arccosh), which lose digits for near and for deep
points: use `poincare`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustree.geometry.numerics import checked_curvature


def lift(v: Tensor, *, curvature: float) -> Tensor:
    """Lift tangent vectors v (..., D) of the ball to hyperboloid points (..., D+1), time first."""
    root = math.sqrt(checked_curvature(curvature))
    v = v.double()
    norm = v.norm(dim=-1, keepdim=True)
    unit = v / norm.clamp(min=torch.finfo(torch.float64).tiny)
    return torch.cat([torch.cosh(2 * root * norm), torch.sinh(2 * root * norm) * unit], dim=-1) / root


def drop(x: Tensor, *, curvature: float) -> Tensor:
    """Return the tangent vectors (..., D) of hyperboloid points x (..., D+1), the inverse of `lift`."""
    root = math.sqrt(checked_curvature(curvature))
    space = x[..., 1:]
    length = space.norm(dim=-1, keepdim=True)
    unit = space / length.clamp(min=torch.finfo(torch.float64).tiny)
    return torch.asinh(root * length) / (2 * root) * unit


def minkowski_product(x: Tensor, y: Tensor) -> Tensor:
    """Return <x, y> = x_1.y_1 + ... - x_0 y_0 of (..., D+1), broadcast, as (...)."""
    return (x[..., 1:] * y[..., 1:]).sum(dim=-1) - x[..., 0] * y[..., 0]


def distance(x: Tensor, y: Tensor, *, curvature: float) -> Tensor:
    """Return d = arccosh(-r <x, y>)/sqrt r of hyperboloid points (..., D+1), broadcast, as (...)."""
    checked_curvature(curvature)
    return torch.acosh((-curvature * minkowski_product(x, y)).clamp(min=1.0)) / math.sqrt(curvature)


def centroid(x: Tensor, weights: Tensor, *, curvature: float) -> Tensor:
    """Return c/sqrt(-r <c, c>), c = sum_i w_i x_i, of x (n, D+1) and weights (m, n), as (m, D+1)."""
    checked_curvature(curvature)
    total = weights.double() @ x
    return total / torch.sqrt(-curvature * minkowski_product(total, total))[:, None]
