"""The levels of a tree as tensors: which nodes compete at a level, and which images of a batch average into which
parents."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from robustree.taxonomy import Cut, Forest

Negatives = Literal["none", "lower", "upper", "both"]
"""Hierarchical negatives beside the level's own nodes: the level below (finer), above (coarser), both, or none."""


@dataclass(frozen=True, eq=False)
class Level:
    """One level l of one tree, ready for a softmax.

    `candidates` (M,): forest nodes that compete, the level's own K nodes first. `excluded` (K, M): True where a
    candidate shares an edge with the node (its parent or child), so that it is neither right nor wrong. `of_leaf`
    (leaves,): index of each leaf's node among the K. `weight`: w_l = 1 - l / (L + 1) or 1."""

    candidates: Tensor
    excluded: Tensor
    of_leaf: Tensor
    weight: float


@lru_cache(maxsize=64)
def levels(forest: Forest, tree: str, negatives: Negatives, linear: bool, device: torch.device) -> tuple[Level, ...]:
    """Levels 0..L of a tree (docs/method.md, section 5, steps 2 and 4)."""
    cuts = tree_cuts(forest, tree)
    return tuple(_level(cuts, number, negatives, linear, device) for number in range(len(cuts)))


def tree_cuts(forest: Forest, tree: str) -> tuple[Cut, ...]:
    """The cuts of a tree from the leaves (level 0) to its coarsest level L."""
    return tuple(forest.cut(tree, number) for number in range(len(forest.tree(tree).levels) + 1))


def _level(cuts: tuple[Cut, ...], number: int, negatives: Negatives, linear: bool, device: torch.device) -> Level:
    own = cuts[number]
    candidates, excluded = list(own.nodes), [torch.zeros(len(own.nodes), len(own.nodes), dtype=torch.bool)]
    neighbours = [cuts[number - 1]] if number > 0 and negatives in ("lower", "both") else []
    neighbours += [cuts[number + 1]] if number + 1 < len(cuts) and negatives in ("upper", "both") else []
    for other in neighbours:
        # Levels are nested partitions, so nodes of neighbouring levels share an edge exactly when they share a leaf.
        edge = torch.zeros(len(own.nodes), len(other.nodes), dtype=torch.bool)
        edge[list(own.of_leaf), list(other.of_leaf)] = True
        fresh = [position for position, node in enumerate(other.nodes) if node not in set(candidates)]
        candidates += [other.nodes[position] for position in fresh]
        excluded.append(edge[:, fresh])
    return Level(
        candidates=torch.tensor(candidates, device=device),
        excluded=torch.cat(excluded, dim=1).to(device),
        of_leaf=torch.tensor(own.of_leaf, device=device),
        weight=1 - number / len(cuts) if linear else 1.0,
    )


@lru_cache(maxsize=64)
def edges(forest: Forest, tree: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Parents (E,) and children (E,) of all edges between consecutive levels of a tree, as forest nodes."""
    cuts = tree_cuts(forest, tree)
    pairs = {
        (upper.nodes[upper.of_leaf[leaf]], lower.nodes[lower.of_leaf[leaf]])
        for lower, upper in pairwise(cuts)
        for leaf in range(forest.leaf_count)
    }
    parents, children = zip(*sorted(pair for pair in pairs if pair[0] != pair[1]), strict=True)
    return torch.tensor(parents, device=device), torch.tensor(children, device=device)


@dataclass(frozen=True, eq=False)
class Generation:
    """The nodes of one level that have images in a batch.

    `nodes` (P,): their indices within the level. `weights` (P, C): 1 where a member of the generation below (an
    image, or a node with images) is a child. `of_image` (B,): each image's row among the P."""

    nodes: Tensor
    weights: Tensor
    of_image: Tensor


def generations(tree_levels: tuple[Level, ...], leaves: Tensor, dtype: torch.dtype) -> tuple[Generation, ...]:
    """Levels 1..L of a batch with classes `leaves` (B,): who averages into whom (docs/method.md, section 5, step 1)."""
    below = torch.arange(len(leaves), device=leaves.device)
    found = []
    for level in tree_levels[1:]:
        nodes, of_image = level.of_leaf[leaves].unique(return_inverse=True)
        weights = torch.zeros(len(nodes), int(below.max()) + 1, dtype=dtype, device=leaves.device)
        weights[of_image, below] = 1
        found.append(Generation(nodes, weights, of_image))
        below = of_image
    return tuple(found)
