"""The spaces in which a classifier head measures how far a point is from a class prototype.

Each space answers the same three questions about points (..., D): `pairwise_distance` (logits are -scale
times it), `midpoint` (the parent of weighted children) and `depth` (how specific a point is).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from robustree.geometry import poincare
from robustree.geometry.numerics import (
    checked_curvature,
    checked_pairs,
    checked_weights,
    guarded_sqrt,
    pairwise_square_gap,
    precision_island,
)


@dataclass(frozen=True)
class Poincare:
    """The Poincare ball of curvature -`curvature`; points are tangent vectors at the origin (see `poincare`).

    Raises ValueError unless curvature is finite and above 0.
    """

    name: ClassVar[str] = "poincare"
    curvature: float = 1.0

    def __post_init__(self) -> None:
        checked_curvature(self.curvature)

    def pairwise_distance(self, points: Tensor, prototypes: Tensor) -> Tensor:
        """Return geodesic distances (B, K) of points (B, D) and prototypes (K, D)."""
        return poincare.pairwise_distance(points, prototypes, curvature=self.curvature)

    def midpoint(self, points: Tensor, weights: Tensor) -> Tensor:
        """Return Einstein midpoints (m, D) of points (n, D) under weights (m, n)."""
        return poincare.einstein_midpoint(points, weights, curvature=self.curvature)

    def depth(self, points: Tensor) -> Tensor:
        """Return the geodesic distances 2|v| (...) of points (..., D) to the origin."""
        return poincare.depth(points)


@dataclass(frozen=True)
class Euclidean:
    """Flat space: straight distances and arithmetic means."""

    name: ClassVar[str] = "euclidean"

    def pairwise_distance(self, points: Tensor, prototypes: Tensor) -> Tensor:
        """Return |u - v| (B, K) of points (B, D) and prototypes (K, D), exact also for near pairs."""
        return _straight_distance(points, prototypes)

    def midpoint(self, points: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted means (m, D) of points (n, D) under weights (m, n)."""
        return _weighted_mean(points, weights)

    def depth(self, points: Tensor) -> Tensor:
        """Return the norms |v| (...) of points (..., D)."""
        return _length(points)


@dataclass(frozen=True)
class Sphere:
    """Directions only: the cosine head of CLIP, logits -scale (1 - cos).

    A zero vector has no direction; it is at distance 1 from everything and has no gradient.
    """

    name: ClassVar[str] = "sphere"

    def pairwise_distance(self, points: Tensor, prototypes: Tensor) -> Tensor:
        """Return 1 - cos (B, K), in [0, 2], of points (B, D) and prototypes (K, D)."""
        return _cosine_gap(points, prototypes)

    def midpoint(self, points: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted means (m, D) of unit vectors of points (n, D); only their direction counts."""
        return _mean_direction(points, weights)

    def depth(self, points: Tensor) -> Tensor:
        """Return the norms |v| (...) of points (..., D), which no distance of this space depends on."""
        return _length(points)


Space: TypeAlias = Poincare | Euclidean | Sphere


@precision_island
def _straight_distance(points: Tensor, prototypes: Tensor) -> Tensor:
    checked_pairs(points, prototypes)
    ones = points.new_ones(len(points)), prototypes.new_ones(len(prototypes))

    def near_gap(i: Tensor, j: Tensor) -> Tensor:
        return (points[i] - prototypes[j]).square().sum(dim=1)

    return guarded_sqrt(pairwise_square_gap(points, prototypes, *ones, near_gap))


@precision_island
def _weighted_mean(points: Tensor, weights: Tensor) -> Tensor:
    weights = checked_weights(points, weights)
    return weights @ points / weights.sum(dim=1, keepdim=True)


@precision_island
def _length(points: Tensor) -> Tensor:
    return torch.linalg.vector_norm(points, dim=-1)


@precision_island
def _cosine_gap(points: Tensor, prototypes: Tensor) -> Tensor:
    checked_pairs(points, prototypes)
    return 1 - _unit(points) @ _unit(prototypes).T


@precision_island
def _mean_direction(points: Tensor, weights: Tensor) -> Tensor:
    weights = checked_weights(points, weights)
    return weights @ _unit(points) / weights.sum(dim=1, keepdim=True)


def _unit(v: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return v * torch.where(norm > 0, 1 / torch.where(norm > 0, norm, 1.0), 0.0)
