"""What attacks maximise: frozen callables `Scores -> (B,)`.

A superclass is a node like a leaf, seen at another cut, so an objective carries its cut and no attack knows about
trees. `take(index)` gives the same objective for some images of the batch: decided images can leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from robustree.taxonomy import Cut
from robustree.tree_model import Scores, columns

Readout = Literal["direct", "via_leaf", "summed"]
"""How a level is read: the node's own prompts; the group of the best leaf; the sum of the leaf probabilities of a
group."""
READOUTS: tuple[Readout, ...] = ("direct", "via_leaf", "summed")


class Objective(Protocol):
    def __call__(self, scores: Scores, /) -> Tensor: ...

    def take(self, index: Tensor, /) -> Objective: ...


def targets(cut: Cut, leaves: Tensor) -> Tensor:
    """The index (B,) of each image's node within the cut."""
    return columns(cut.of_leaf, leaves.device)[leaves]


def level_scores(scores: Scores, cut: Cut, leaf_cut: Cut, readout: Readout) -> Tensor:
    """Scores (B, K) of a level's nodes as one readout ranks them; their argmax is that readout's decision.

    direct: the nodes' own logits. via_leaf: the largest leaf logit of each group. summed: its log-sum-exp.

    Raises:
        ValueError: `readout` is none of these.
    """
    if readout not in READOUTS:
        raise ValueError(f"readout is {readout!r}; direct, via_leaf and summed are supported: choose one.")
    if readout == "direct":
        return scores.at(cut)
    leaves = scores.at(leaf_cut)
    group = columns(cut.of_leaf, leaves.device).expand_as(leaves)
    empty = leaves.new_full((len(leaves), len(cut.nodes)), -torch.inf)
    largest = empty.scatter_reduce(1, group, leaves, "amax")
    if readout == "via_leaf":
        return largest
    centred = (leaves - largest.detach().gather(1, group)).exp()
    return torch.zeros_like(empty).scatter_add(1, group, centred).log() + largest.detach()


@dataclass(frozen=True, eq=False)
class CrossEntropy:
    """-log softmax(logits of the cut)[true node], in nats; with `towards`, +log softmax of that node (a targeted
    attack)."""

    cut: Cut
    leaves: Tensor
    towards: int | None = None

    def __call__(self, scores: Scores) -> Tensor:
        logits = scores.at(self.cut)
        if self.towards is not None:
            goal = torch.full_like(self.leaves, self.towards)
            return -F.cross_entropy(logits, goal, reduction="none")
        return F.cross_entropy(logits, targets(self.cut, self.leaves), reduction="none")

    def take(self, index: Tensor) -> CrossEntropy:
        return replace(self, leaves=self.leaves[index])


@dataclass(frozen=True, eq=False)
class Margin:
    """max_{c != y} z_c - z_y at a cut, positive exactly when the level's decision is wrong (Carlini & Wagner 2017).

    `readout` names the decision that is attacked; an attack must aim at the readout that is scored. With `towards` =
    t the margin is z_t - max_{c != t} z_c: positive exactly when the decision is t."""

    cut: Cut
    leaves: Tensor
    leaf_cut: Cut
    readout: Readout = "direct"
    towards: int | None = None

    def __call__(self, scores: Scores) -> Tensor:
        logits = level_scores(scores, self.cut, self.leaf_cut, self.readout)
        node = targets(self.cut, self.leaves) if self.towards is None else torch.full_like(self.leaves, self.towards)
        own = logits.gather(1, node[:, None])[:, 0]
        others = logits.scatter(1, node[:, None], -torch.inf).amax(1)
        return others - own if self.towards is None else own - others

    def take(self, index: Tensor) -> Margin:
        return replace(self, leaves=self.leaves[index])


@dataclass(frozen=True, eq=False)
class DifferenceOfLogitsRatio:
    """(max_{c != y} z_c - z_y) / (z_(1) - z_(3)), free of the logit scale (Croce & Hein 2020, equation 6).

    Raises:
        ValueError: the cut has fewer than three nodes; use `Margin` there.
    """

    cut: Cut
    leaves: Tensor

    def __post_init__(self) -> None:
        if len(self.cut.nodes) < 3:
            raise ValueError(
                f"level {self.cut.label} has {len(self.cut.nodes)} nodes; the difference of logits ratio needs 3: "
                "use the margin."
            )

    def __call__(self, scores: Scores) -> Tensor:
        logits = scores.at(self.cut)
        node = targets(self.cut, self.leaves)
        own = logits.gather(1, node[:, None])[:, 0]
        others = logits.scatter(1, node[:, None], -torch.inf).amax(1)
        largest = logits.topk(3, dim=1).values
        # The floor keeps the quotient finite when the three largest logits are equal.
        return (others - own) / (largest[:, 0] - largest[:, 2]).clamp(min=1e-12)

    def take(self, index: Tensor) -> DifferenceOfLogitsRatio:
        return replace(self, leaves=self.leaves[index])


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """sum_i weights_i * objectives_i: every level at once (METHOD section 5, step 4, without the hierarchical
    negatives)."""

    objectives: tuple[Objective, ...]
    weights: tuple[float, ...]

    def __call__(self, scores: Scores) -> Tensor:
        terms = [weight * objective(scores) for weight, objective in zip(self.weights, self.objectives, strict=True)]
        return torch.stack(terms).sum(0)

    def take(self, index: Tensor) -> WeightedSum:
        return replace(self, objectives=tuple(objective.take(index) for objective in self.objectives))


@dataclass(frozen=True, eq=False)
class EmbeddingShift:
    """|f(x) - reference|^2, summed over dimensions, of un-normalised embeddings (FARE, Schlarmann et al. 2024,
    equation 3)."""

    reference: Tensor

    def __call__(self, scores: Scores) -> Tensor:
        return (scores.points - self.reference).square().sum(1)

    def take(self, index: Tensor) -> EmbeddingShift:
        return replace(self, reference=self.reference[index])


@dataclass(frozen=True, eq=False)
class SoftCrossEntropy:
    """-sum_c q_c log softmax(sharpness * logits of the cut)_c against given probabilities q (B, K) (AGFT's inner and
    outer loss)."""

    cut: Cut
    probabilities: Tensor
    sharpness: float = 1.0

    def __call__(self, scores: Scores) -> Tensor:
        return F.cross_entropy(self.sharpness * scores.at(self.cut), self.probabilities, reduction="none")

    def take(self, index: Tensor) -> SoftCrossEntropy:
        return replace(self, probabilities=self.probabilities[index])


def every_level(cuts: Sequence[Cut], leaves: Tensor) -> WeightedSum:
    """The mean cross-entropy over all given cuts: the attack that threatens every level at once."""
    return WeightedSum(tuple(CrossEntropy(cut, leaves) for cut in cuts), (1 / len(cuts),) * len(cuts))
