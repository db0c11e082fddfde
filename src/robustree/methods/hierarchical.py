"""Hierarchically robust fine-tuning, HRFT (arXiv 2604.18867, CVPR 2026), every part an option (docs/method.md).

Steps: parents by hyperbolic averaging (HypAvg), hierarchical negatives (HNSA), image-text alignment at every level
(HITA), a bound on image-text distance (vic), a norm order along the tree (gap), under one universal perturbation of
images and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from robustree.attacks.threat import Threat
from robustree.methods.lineage import Generation, Level, Negatives, edges, generations, levels
from robustree.methods.method import Adversarial, Context
from robustree.objectives import CrossEntropy, Margin, Objective
from robustree.taxonomy import Forest
from robustree.tree_model import Head, Scores

Parents = Literal["direct", "recursive", "both", "off"]
"""How images reach the upper levels. direct: each image is aligned with its node at every level; recursive: the
averages of HypAvg are; both: the mean of the two losses; off: the leaf level alone."""
Perturbation = Literal["universal", "leaf", "per_level"]
"""What the training attack maximises: all levels at once, the leaf alone, or each level in an attack of its own."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """L' of docs/method.md, section 5, one value an image: mean over trees of the sum over levels of
    w_l * CE(softmax(-scale d_r), node).

    At level l the softmax runs over the level's nodes and the hierarchical negatives. A parent's loss is given to
    each of its images, so a node weighs as much as it has images in the batch. `only`: this level alone (for one
    attack a level)."""

    forest: Forest
    head: Head
    leaves: Tensor
    parents: Parents
    negatives: Negatives
    linear_weights: bool
    only: int | None = None

    def __call__(self, scores: Scores) -> Tensor:
        trees = [self._tree(scores, tree.name) for tree in self.forest.trees]
        return torch.stack(trees).mean(0)

    def lead(self, scores: Scores) -> Tensor:
        """(B,) the least margin of a wrong node: positive when every level that the loss reads is wrong."""
        cuts = [cut for cut in self.forest.cuts() if self.only in (None, cut.level)]
        return torch.stack([Margin(cut, self.leaves).lead(scores) for cut in cuts]).amin(0)

    def take(self, index: Tensor) -> Alignment:
        return replace(self, leaves=self.leaves[index])

    def _tree(self, scores: Scores, tree: str) -> Tensor:
        line = levels(self.forest, tree, self.negatives, self.linear_weights, self.leaves.device)
        total = scores.points.new_zeros(len(self.leaves))
        if self.only in (None, 0):
            total = total + line[0].weight * self._images(scores, line[0])
        if self.parents in ("direct", "both"):
            share = 0.5 if self.parents == "both" else 1.0
            for number, level in enumerate(line[1:], start=1):
                if self.only in (None, number):
                    total = total + share * level.weight * self._images(scores, level)
        if self.parents in ("recursive", "both"):
            share = 0.5 if self.parents == "both" else 1.0
            members = generations(line, self.leaves, scores.points.dtype)
            averages = ancestors(scores.points, members, self.head)
            for number, (level, member, points) in enumerate(zip(line[1:], members, averages, strict=True), start=1):
                if self.only in (None, number):
                    logits = -self.head.scale * self.head.space.pairwise_distance(
                        points, scores.prototypes[level.candidates]
                    )
                    own = _masked_cross_entropy(logits, level, member.nodes)
                    total = total + share * level.weight * own[member.of_image]
        return total

    def _images(self, scores: Scores, level: Level) -> Tensor:
        return _masked_cross_entropy(scores.nodes[:, level.candidates], level, level.of_leaf[self.leaves])


@dataclass(frozen=True, kw_only=True)
class Hierarchical:
    """L = L' + vic * V + gap_label * G_text + gap_image * G_image (docs/method.md, section 5, step 7), the mean over
    several trees.

    V = mean_i max(0, d(x^_i, t_{y_i}) - vic_bound). G = mean over edges of max(0, depth(parent) - depth(child) +
    gap_margin), of texts, or of HypAvg parents and their children. A weight of 0 switches its part off. `text_eps`:
    linf radius on the unit-norm text features, 0 for none. `perturbation`: one attack on all levels (universal), on
    the leaf alone, or one a level.

    The paper publishes no weights: these defaults come from the sweep in benchmarks/hierarchical_sweep.json.
    """

    parents: Parents = "direct"
    negatives: Negatives = "both"
    linear_weights: bool = True
    vic: float = 0.1
    vic_bound: float = 1.0
    gap_label: float = 0.1
    gap_image: float = 0.1
    gap_margin: float = 0.1
    text_eps: float = 2e-4
    perturbation: Perturbation = "universal"
    train_text: bool = True

    def __post_init__(self) -> None:
        weights = {"vic": self.vic, "gap_label": self.gap_label, "gap_image": self.gap_image, "text_eps": self.text_eps}
        for name, value in weights.items():
            if not 0 <= value < torch.inf:
                raise ValueError(f"{name} is {value}; weights and radii are at least 0: 0 switches the part off.")
        for name, kinds in (("parents", Parents), ("negatives", Negatives), ("perturbation", Perturbation)):
            value = getattr(self, name)
            if value not in get_args(kinds):
                raise ValueError(f"{name} is {value!r}; {', '.join(get_args(kinds))} are supported: choose one.")

    @property
    def trains_text(self) -> bool:
        return self.train_text

    @property
    def text_threat(self) -> Threat | None:
        if not self.text_eps:
            return None
        return Threat(eps=self.text_eps, low=-torch.inf, high=torch.inf)

    def inner(self, context: Context) -> Sequence[Objective]:
        if self.perturbation == "leaf":
            return (CrossEntropy(context.forest.leaf_cut, context.leaves),)
        alignment = self._alignment(context)
        if self.perturbation == "universal":
            return (alignment,)
        count = 1 if self.parents == "off" else _depth(context.forest) + 1
        return tuple(replace(alignment, only=number) for number in range(count))

    def loss(self, context: Context, adversarial: Sequence[Adversarial]) -> tuple[Tensor, dict[str, Tensor]]:
        objectives = self.inner(context) if self.perturbation == "per_level" else (self._alignment(context),)
        terms = {
            "alignment": sum(
                (objective(made.scores).mean() for objective, made in zip(objectives, adversarial, strict=True)),
                start=context.images.new_zeros(()),
            )
        }
        scores = adversarial[0].scores
        if self.vic:
            own = -scores.nodes.gather(1, context.leaves[:, None])[:, 0] / context.head.scale
            terms["vic"] = F.relu(own - self.vic_bound).mean()
        if self.gap_label:
            depth = context.head.space.depth(scores.prototypes)
            gaps = [self._label_gap(context.forest, depth, tree.name) for tree in context.forest.trees]
            terms["gap_label"] = torch.stack(gaps).mean()
        if self.gap_image:
            terms["gap_image"] = torch.stack(
                [self._image_gap(context, scores, tree.name) for tree in context.forest.trees]
            ).mean()
        weights = {"vic": self.vic, "gap_label": self.gap_label, "gap_image": self.gap_image}
        loss = terms["alignment"] + sum(weights[name] * value for name, value in terms.items() if name in weights)
        return loss, {name: value.detach() for name, value in terms.items()}

    def _alignment(self, context: Context) -> Alignment:
        if not context.forest.trees:
            raise ValueError("the forest has no tree; the hierarchical method needs one: give a label tree.")
        return Alignment(
            context.forest, context.head, context.leaves, self.parents, self.negatives, self.linear_weights
        )

    def _label_gap(self, forest: Forest, depth: Tensor, tree: str) -> Tensor:
        parents, children = edges(forest, tree, depth.device)
        return F.relu(depth[parents] - depth[children] + self.gap_margin).mean()

    def _image_gap(self, context: Context, scores: Scores, tree: str) -> Tensor:
        line = levels(context.forest, tree, self.negatives, self.linear_weights, scores.points.device)
        members = generations(line, context.leaves, scores.points.dtype)
        depths = [
            context.head.space.depth(p) for p in (scores.points, *ancestors(scores.points, members, context.head))
        ]
        gaps = [
            F.relu(upper[:, None] - lower[None] + self.gap_margin)[member.weights > 0]
            for lower, upper, member in zip(depths, depths[1:], members, strict=False)
        ]
        return torch.cat(gaps).mean()


def ancestors(points: Tensor, members: tuple[Generation, ...], head: Head) -> list[Tensor]:
    """HypAvg: the points (P_l, D) of levels 1..L, each the midpoint of its children one level below (METHOD section
    5, step 1)."""
    found = []
    for member in members:
        points = head.space.midpoint(points, member.weights)
        found.append(points)
    return found


def _masked_cross_entropy(logits: Tensor, level: Level, nodes: Tensor) -> Tensor:
    """Cross-entropy (B,) of logits (B, M) over a level's candidates, with parent and child of `nodes` (B,) left out."""
    return F.cross_entropy(logits.masked_fill(level.excluded[nodes], -torch.inf), nodes, reduction="none")


def _depth(forest: Forest) -> int:
    return max(len(tree.levels) for tree in forest.trees)
