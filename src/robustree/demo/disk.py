"""The ball of a hyperbolic model, flattened: texts of one tree, and an image that moves under attack.

A plane through the origin is chosen by the texts of the tree's coarsest level: their first two principal directions. A
point keeps its true distance from the centre; only its direction is projected, as seen from the mean of its level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from robustree.demo.decisions import levels_of
from robustree.geometry import Poincare
from robustree.taxonomy import Forest
from robustree.tree_model import TreeModel

_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A plane of tangent space: two orthonormal `axes` (2, D), and the mean direction `centre` (D,) of the coarsest
    texts.

    `top_share` and `share`: how much it holds of the square distances of unit directions from the mean of their level,
    for the coarsest level and for all texts of the tree.
    """

    axes: Tensor
    centre: Tensor
    top_share: float
    share: float
    curvature: float

    def project(self, points: Tensor, centres: Tensor | None = None) -> Tensor:
        """Tangent vectors (B, D) to the unit disk (B, 2), |x| = tanh(sqrt(r)|v|), in the direction in which the plane
        sees them from `centres` (B, D), by default the coarsest texts' mean.

        A vector without direction in the plane goes to the first axis.
        """
        norms = points.norm(dim=1, keepdim=True)
        flat = (points / norms.clamp(min=_TINY) - (self.centre if centres is None else centres)) @ self.axes.T
        length = flat.norm(dim=1, keepdim=True)
        first = torch.tensor([1.0, 0.0], device=flat.device, dtype=flat.dtype)
        direction = torch.where(length > 0, flat / length.clamp(min=_TINY), first)
        return direction * torch.tanh(self.curvature**0.5 * norms)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A text in the disk: forest node, place, depth (distance from the origin)."""

    node: int
    x: float
    y: float
    depth: float


@torch.no_grad()
def find_plane(model: TreeModel, forest: Forest, tree: str) -> tuple[Plane, tuple[Mark, ...]]:
    """The plane of a tree, and all texts of its levels in it, leaves first.

    Raises:
        ValueError: the model's head is not hyperbolic, or its space has fewer than two dimensions.
    """
    space = model.head.space
    if not isinstance(space, Poincare):
        raise ValueError(f"the head is {space.name}; only points of the Poincare ball have a disk.")
    prototypes = model.prototypes()
    if prototypes.shape[1] < 2:
        raise ValueError(f"the space has {prototypes.shape[1]} dimension; a plane needs two.")
    directions = F.normalize(prototypes)
    means: dict[int, Tensor] = {}
    for cut in reversed(levels_of(forest, tree)):
        means |= dict.fromkeys(cut.nodes, directions[list(cut.nodes)].mean(0))  # the finest level has the last word
    nodes = sorted(means)
    centres = torch.stack([means[node] for node in nodes])
    top = directions[list(forest.cut(tree, forest.tree(tree).depth).nodes)]
    axes = torch.linalg.svd(top - top.mean(0), full_matrices=True).Vh[:2]
    plane = Plane(
        axes=axes,
        centre=top.mean(0),
        top_share=_share(top - top.mean(0), axes),
        share=_share(directions[nodes] - centres, axes),
        curvature=space.curvature,
    )
    places = plane.project(prototypes[nodes], centres).tolist()
    depths = space.depth(prototypes[nodes]).tolist()
    marks = zip(nodes, places, depths, strict=True)
    return plane, tuple(Mark(node=node, x=x, y=y, depth=depth) for node, (x, y), depth in marks)


def _share(centred: Tensor, axes: Tensor) -> float:
    total = float(centred.square().sum())
    return float((centred @ axes.T).square().sum()) / total if total else 0.0


def distances(model: TreeModel, point: Tensor, nodes: Sequence[int]) -> list[float]:
    """The true geodesic distances of an image's point (D,) to node texts: nothing is projected."""
    with torch.no_grad():
        return model.head.space.pairwise_distance(point[None], model.prototypes()[list(nodes)])[0].tolist()
