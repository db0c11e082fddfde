"""Agglomerative clustering of embeddings, as numbers only: no torch, no names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage

from robustree.taxonomy.sizing import chains_above

Linkage = Literal["ward", "average", "complete"]
"""How far apart two clusters are: the variance that their union adds, or the mean or largest distance of members."""


def directions(embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    """Embeddings (K, D) as unit vectors around their centre: centred, then scaled to length 1.

    Embeddings of text lie in a narrow cone, whose axis says nothing about the classes.

    Raises:
        ValueError: a value is not finite, or an embedding is the mean of all and so has no direction.
    """
    points = np.asarray(embeddings, dtype=np.float64)
    if points.ndim != 2 or len(points) < 2:
        raise ValueError(f"embeddings have the shape {points.shape}; give one row for each of at least two classes.")
    if not np.isfinite(points).all():
        raise ValueError("the embedding of a class is not finite: use another model.")
    centred = points - points.mean(axis=0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    if (norms <= 1e-9 * np.abs(points).max()).any():
        raise ValueError("the model gives the same embedding to all classes, so that they have no order: use another.")
    return centred / norms


def merges_of(points: NDArray[np.float64], method: Linkage = "ward") -> NDArray[np.float64]:
    """scipy's linkage matrix (K - 1, 4) of points (K, D) under the Euclidean distance: row i makes node K + i."""
    return linkage(points, method=method)


def chains_of(merges: NDArray[np.float64]) -> list[list[int]]:
    """For every leaf the nodes above it, from the lowest to the root (node 2 K - 2)."""
    count = len(merges) + 1
    return chains_above({int(child): count + row for row, pair in enumerate(merges) for child in pair[:2]}, count)


def central_first(points: NDArray[np.float64], members: Sequence[int]) -> list[int]:
    """The members by their summed distance to the others, the medoid first."""
    own = points[list(members)]
    distances = np.linalg.norm(own[:, None] - own[None], axis=2).sum(axis=1)
    return [members[position] for position in np.argsort(distances, kind="stable")]
