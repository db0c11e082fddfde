"""How large a log-margin K classes can have at once: Theorem 1 of arXiv 2604.18867 and its extensions.

The margin is min over classes y and rivals c of logit_y(point_y) - logit_c(point_y), maximised over points
and prototypes of ball norm at most eta (Euclidean norm, for dot products) in d dimensions. The best
prototypes sit on the sphere of norm eta, as far apart as possible: a simplex for K <= d+1, part of an
orthoplex (axes +-e_i) for d+2 <= K <= 2d, which covers CLIP's d = 512 and ImageNet's K = 1000. For more
classes no closed form is known.

In tangent coordinates the hyperbolic margin is linear, 4 scale rho: its divergence at the boundary is one of
coordinates, and a large margin alone is not robustness.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustree.geometry.numerics import checked_curvature
from robustree.geometry.poincare import pairwise_distance


def two_class_margin(eta: float, curvature: float, scale: float) -> float:
    """Return the largest two-class margin of logits -scale d_r (Theorem 1).

    (4 scale/sqrt r) artanh(sqrt(r) eta), eta in [0, 1/sqrt r). Raises ValueError outside that range.
    """
    return 4 * scale * tangent_norm(eta, curvature)


def two_class_dot_margin(eta: float, scale: float) -> float:
    """Return the largest two-class margin of logits scale <., .>: 2 scale eta^2."""
    return 2 * scale * _checked_norm(eta) ** 2


def simplex_margin(eta: float, classes: int, curvature: float, scale: float) -> float:
    """Return the largest margin of K classes when d >= K-1.

    (2 scale/sqrt r) asinh([2 sqrt(r) eta/(1 - r eta^2)] sqrt(K/(2(K-1)))).
    """
    return class_margin(eta, classes, classes - 1, curvature, scale)


def simplex_dot_margin(eta: float, classes: int, scale: float) -> float:
    """Return the largest dot-product margin of K classes when d >= K-1: scale eta^2 K/(K-1)."""
    return class_dot_margin(eta, classes, classes - 1, scale)


def orthoplex_margin(eta: float, curvature: float, scale: float) -> float:
    """Return the largest margin of d+2 <= K <= 2d classes.

    (2 scale/sqrt r) asinh(sinh(2A)/sqrt 2), A = artanh(sqrt(r) eta).
    """
    return class_margin(eta, 4, 2, curvature, scale)


def orthoplex_dot_margin(eta: float, scale: float) -> float:
    """Return the largest dot-product margin of d+2 <= K <= 2d classes: scale eta^2 (by Radon's theorem)."""
    return class_dot_margin(eta, 4, 2, scale)


def class_margin(eta: float, classes: int, dimension: int, curvature: float, scale: float) -> float:
    """Return the largest margin of K classes in d dimensions, K <= 2d, of logits -scale d_r.

    (2 scale/sqrt r) asinh(sinh(2A) sin(theta/2)), with theta the largest angle that K directions can keep.
    eta in [0, 1/sqrt r). Raises ValueError outside that range, for K < 2 and for K > 2d.
    """
    root = math.sqrt(checked_curvature(curvature))
    sine = half_angle_sine(classes, dimension)
    return 2 * scale / root * math.asinh(math.sinh(2 * root * tangent_norm(eta, curvature)) * sine)


def class_dot_margin(eta: float, classes: int, dimension: int, scale: float) -> float:
    """Return the largest margin of K classes in d dimensions, K <= 2d, of logits scale <., .>.

    2 scale eta^2 sin^2(theta/2). Raises ValueError for a negative eta, for K < 2 and for K > 2d.
    """
    return 2 * scale * (_checked_norm(eta) * half_angle_sine(classes, dimension)) ** 2


def tangent_margin(rho: float, scale: float) -> float:
    """Return the largest two-class margin of logits -scale d_r at tangent norm rho: 4 scale rho."""
    return 4 * scale * _checked_norm(rho)


def half_angle_sine(classes: int, dimension: int) -> float:
    """Return sin(theta/2), theta the largest angle that K directions in d dimensions can keep.

    sqrt(K/(2(K-1))) for K <= d+1, sqrt(1/2) for d+2 <= K <= 2d. Raises ValueError for K < 2 and for K > 2d,
    where no closed form is known.
    """
    if not 2 <= classes <= 2 * dimension:
        raise ValueError(
            f"{classes} classes in {dimension} dimensions have no closed form, K must be in [2, 2d]; "
            "use numeric_margin."
        )
    return math.sqrt(classes / (2 * (classes - 1))) if classes <= dimension + 1 else math.sqrt(0.5)


def tangent_norm(eta: float, curvature: float) -> float:
    """Return rho = artanh(sqrt(r) eta)/sqrt r. Raises ValueError unless eta is in [0, 1/sqrt r)."""
    root = math.sqrt(checked_curvature(curvature))
    if not 0.0 <= root * eta < 1.0:
        raise ValueError(f"eta is {eta}, a ball norm is in [0, {1 / root:g}); lower eta or the curvature.")
    return math.atanh(root * eta) / root


def _checked_norm(norm: float) -> float:
    if not 0.0 <= norm < math.inf:
        raise ValueError(f"the norm is {norm}, it must be finite and at least 0; pass a length.")
    return norm


@dataclass(frozen=True)
class MarginCurve:
    """Largest margins along eta, ready to plot; every field has the same length."""

    ball_norm: tuple[float, ...]
    tangent_norm: tuple[float, ...]
    hyperbolic: tuple[float, ...]
    dot: tuple[float, ...]


def margin_curve(
    curvature: float,
    scale: float,
    *,
    classes: int = 2,
    dimension: int = 2,
    count: int = 100,
    reach: float = 0.999,
) -> MarginCurve:
    """Return `class_margin` and `class_dot_margin` at `count` norms eta from 0 to reach/sqrt r.

    Raises ValueError unless count >= 2 and 0 < reach < 1, and as `class_margin` does.
    """
    if count < 2 or not 0.0 < reach < 1.0:
        raise ValueError(
            f"count is {count} and reach {reach}, they must be >= 2 and in (0, 1); try count=100, reach=0.999."
        )
    edge = reach / math.sqrt(checked_curvature(curvature))
    norms = tuple(edge * i / (count - 1) for i in range(count))
    return MarginCurve(
        ball_norm=norms,
        tangent_norm=tuple(tangent_norm(eta, curvature) for eta in norms),
        hyperbolic=tuple(class_margin(eta, classes, dimension, curvature, scale) for eta in norms),
        dot=tuple(class_dot_margin(eta, classes, dimension, scale) for eta in norms),
    )


def numeric_margin(
    logits: Callable[[Tensor, Tensor], Tensor],
    radius: float,
    classes: int,
    dimension: int,
    *,
    generator: torch.Generator,
    steps: int = 300,
    restarts: int = 3,
) -> float:
    """Return the largest margin that a search finds: a lower bound, in practice within 2 % of the truth.

    `logits` maps points (K, d) and prototypes (K, d), both of norm at most `radius`, to (K, K). The search is
    projected Adam on a soft minimum that hardens; the margin returned is the best hard one.
    """
    best = -math.inf
    rivals = ~torch.eye(classes, dtype=torch.bool)
    for _ in range(restarts):
        start = torch.randn(classes, dimension, generator=generator, dtype=torch.float64)
        start = radius * start / start.norm(dim=1, keepdim=True)
        points, prototypes = start.clone().requires_grad_(), start.clone().requires_grad_()
        optimizer = torch.optim.Adam([points, prototypes], lr=0.05 * radius)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 0.05 * radius * (1 - step / steps)
            score = logits(points, prototypes)
            margins = (score.diagonal()[:, None] - score)[rivals]
            best = max(best, margins.min().item())
            hardness = 5 * 200 ** (step / steps) / max(abs(best), 1e-12)
            optimizer.zero_grad()
            (torch.logsumexp(-hardness * margins, dim=0) / hardness).backward()
            optimizer.step()
            with torch.no_grad():
                for x in (points, prototypes):
                    x.mul_(radius / x.norm(dim=1, keepdim=True).clamp(min=radius))
    return best


def numeric_two_class_margin(
    eta: float, curvature: float, scale: float, *, generator: torch.Generator, dimension: int = 2
) -> float:
    """Return the two-class margin of -scale d_r that `numeric_margin` finds at ball norms up to eta."""

    def logits(points: Tensor, prototypes: Tensor) -> Tensor:
        return -scale * pairwise_distance(points, prototypes, curvature=curvature)

    return numeric_margin(logits, tangent_norm(eta, curvature), 2, dimension, generator=generator)
