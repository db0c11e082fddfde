"""What models say about one image, at every level of every tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robustree.auditing.audit import Subject
from robustree.checkpoint import device_of
from robustree.taxonomy import Cut, Forest
from robustree.tree_model import Scores


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The node that a model chooses at one level; `score` is its softmax over the level's nodes."""

    cut: Cut
    node: int
    score: float


Decisions = Mapping[str, Decision]
"""One decision for every cut of a forest, by the cut's label."""


@torch.no_grad()
def decide(subject: Subject, forest: Forest, image: Tensor) -> Decisions:
    """A model's decisions about an image (3, H, W).

    Raises:
        ValueError: the model gave scores that are not finite.
    """
    scores: Scores = subject.model(image[None].to(device_of(subject.model)))
    if not bool(scores.nodes.isfinite().all()):
        raise ValueError(f"the model {subject.name!r} gave scores that are not finite: check its weights.")
    return read(scores, forest)


@torch.no_grad()
def read(scores: Scores, forest: Forest) -> Decisions:
    """The decisions in the scores of one image."""
    found = {}
    for cut in forest.cuts():
        score, index = scores.at(cut)[0].softmax(0).max(0)
        found[cut.label] = Decision(cut=cut, node=cut.nodes[int(index)], score=float(score))
    return found


def levels_of(forest: Forest, tree: str) -> list[Cut]:
    """The cuts of a tree, the leaves first."""
    return [forest.cut(tree, level) for level in range(forest.tree(tree).depth + 1)]


def path_of(decisions: Decisions, forest: Forest, tree: str) -> tuple[int, ...]:
    """The chosen nodes of a tree's levels, leaf first; nothing makes them lie below one another."""
    return tuple(decisions[cut.label].node for cut in levels_of(forest, tree))


def truth_of(forest: Forest, leaf: int) -> dict[str, int]:
    """The right node of every cut for an image of that leaf."""
    return {cut.label: cut.nodes[cut.of_leaf[leaf]] for cut in forest.cuts()}
