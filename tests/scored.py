"""Cuts and scores for the tests of objectives, and decisions from their definition."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustree.objectives import Readout
from robustree.taxonomy import Cut
from robustree.tree_model import Scores

LEAF = Cut("", 0, (0, 1, 2, 3, 4), (0, 1, 2, 3, 4))
# nodes 6 and 8 group the leaves {0, 2} and {3, 4}; leaf 1 stands for itself, and 5 and 7 belong elsewhere
GROUPS = Cut("t", 1, (1, 6, 8), (1, 0, 1, 2, 2))
PAIR = Cut("t", 2, (5, 7), (0, 0, 0, 1, 1))
ALONE = Cut("t", 3, (5,), (0, 0, 0, 0, 0))
LEAVES = torch.tensor([0, 1, 3, 4])


def logits(rows: int = 4, columns: int = 9, *, seed: int = 0, scale: float = 3.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, columns, generator=draw, dtype=torch.float64)


def scored(nodes: Tensor, points: Tensor | None = None) -> Scores:
    return Scores(torch.zeros(len(nodes), 2) if points is None else points, torch.zeros(nodes.shape[1], 2), nodes)


def partition(groups: int, *, seed: int) -> tuple[Cut, Cut]:
    """2 * groups + 1 leaves, and a cut of `groups` nodes above them, every one with a leaf."""
    count = 2 * groups + 1
    draw = torch.Generator().manual_seed(seed)
    of_leaf = torch.cat([torch.arange(groups), torch.randint(groups, (count - groups,), generator=draw)])
    every = tuple(range(count))
    of_leaf = of_leaf[torch.randperm(count, generator=draw)]
    return Cut("", 0, every, every), Cut("t", 1, tuple(range(count, count + groups)), tuple(of_leaf.tolist()))


def decision(nodes: Tensor, cut: Cut, leaf_cut: Cut, readout: Readout) -> list[int]:
    """The node index that each readout decides on, from its definition."""
    leaves = nodes[:, : len(leaf_cut.nodes)]
    if readout == "direct":
        return nodes[:, list(cut.nodes)].argmax(1).tolist()
    if readout == "via_leaf":
        return [cut.of_leaf[leaf] for leaf in leaves.argmax(1).tolist()]
    member = torch.nn.functional.one_hot(torch.tensor(cut.of_leaf), len(cut.nodes)).to(leaves)
    return (leaves.softmax(1) @ member).argmax(1).tolist()


def log_softmax(row: list[float]) -> list[float]:
    top = max(row)
    total = math.fsum(math.exp(value - top) for value in row)
    return [value - top - math.log(total) for value in row]
