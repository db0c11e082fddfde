"""What attacks maximise: frozen callables `Scores -> (B,)`.

A superclass is a node like a leaf, seen at another cut, so an objective carries its cut and no attack knows about
trees. `lead` says how far the attacked decision is on the attacker's side, whatever the loss;
`take(index)` gives the same objective for some images of the batch: decided images can leave."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from robustree.taxonomy import Cut
from robustree.tree_model import Scores, columns

Readout = Literal["direct", "via_leaf", "summed"]
"""How a level is read: the node's own prompts; the group of the best leaf; the sum of the leaf probabilities of a
group."""
READOUTS: tuple[Readout, ...] = ("direct", "via_leaf", "summed")
Loss = Literal["cross_entropy", "margin", "ratio"]
"""What an attack on a decision maximises."""


class Objective(Protocol):
    """What an attack maximises; see `robustree.attacks.Objective`."""

    def __call__(self, scores: Scores, /) -> Tensor: ...

    def lead(self, scores: Scores, /) -> Tensor: ...

    def take(self, index: Tensor, /) -> Objective: ...


def targets(cut: Cut, leaves: Tensor) -> Tensor:
    """The index (B,) of each image's node within the cut."""
    return columns(cut.of_leaf, leaves.device)[leaves]


def level_scores(scores: Scores, cut: Cut, readout: Readout) -> Tensor:
    """Scores (B, K) of a level's nodes as one readout ranks them; their argmax is that readout's decision.

    direct: the nodes' own logits. via_leaf: the largest leaf logit of each group. summed: its log-sum-exp.

    Raises:
        ValueError: `readout` is none of these.
    """
    if readout not in READOUTS:
        raise ValueError(f"readout is {readout!r}; direct, via_leaf and summed are supported: choose one.")
    if readout == "direct":
        return scores.at(cut)
    leaves = scores.nodes[:, : len(cut.of_leaf)]
    group = columns(cut.of_leaf, leaves.device).expand_as(leaves)
    empty = leaves.new_full((len(leaves), len(cut.nodes)), -torch.inf)
    largest = empty.scatter_reduce(1, group, leaves, "amax")
    if readout == "via_leaf":
        return largest
    centred = (leaves - largest.detach().gather(1, group)).exp()
    return torch.zeros_like(empty).scatter_add(1, group, centred).log() + largest.detach()


@dataclass(frozen=True, eq=False)
class LevelObjective(ABC):
    """An objective about one decision: the level `cut`, as `readout` decides it, of images that show `leaves` (B,).

    The attacker wants any node but the true one, or, with `towards`, one of those nodes of the cut (a leaf, or all
    leaves of a subtree). An attack must aim at the readout that is scored. `rival` (B,): the one node that the loss
    pushes towards (`aimed`); the decision that is wanted stays the same.

    Raises:
        ValueError: `towards` names no node or every node of the cut, or the readout is unknown.
    """

    cut: Cut
    leaves: Tensor
    readout: Readout = field(default="direct", kw_only=True)
    towards: int | tuple[int, ...] | None = field(default=None, kw_only=True)
    rival: Tensor | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        nodes = len(self.cut.nodes)
        if self.readout not in READOUTS:
            raise ValueError(f"readout is {self.readout!r}; direct, via_leaf and summed are supported: choose one.")
        if self.towards is not None and (
            not 0 < len(self._wanted) < nodes or any(not 0 <= node < nodes for node in self._wanted)
        ):
            raise ValueError(
                f"towards is {self.towards}; level {self.cut.label} has the nodes 0 to {nodes - 1}: name some of them, "
                "not all."
            )

    @abstractmethod
    def loss(self, logits: Tensor, won: Tensor, lost: Tensor) -> Tensor:
        """The objective (B,), given the logits (B, K), the highest of the nodes that the attacker wants, and the
        highest of the others."""

    def __call__(self, scores: Scores) -> Tensor:
        logits = self.logits(scores)
        won, lost = self._sides(logits)
        if self.rival is not None:
            won = logits.gather(1, self.rival[:, None])[:, 0]
        return self.loss(logits, won, lost)

    def logits(self, scores: Scores) -> Tensor:
        """The scores (B, K) whose argmax is the decision under attack."""
        return level_scores(scores, self.cut, self.readout)

    def lead(self, scores: Scores) -> Tensor:
        """(B,) the highest logit that the attacker wants less the highest other one: positive exactly when the decision
        is a wanted one, zero at a tie."""
        won, lost = self._sides(self.logits(scores))
        return won - lost

    def take(self, index: Tensor) -> Self:
        """The same objective for some images of the batch."""
        rival = None if self.rival is None else self.rival[index]
        return replace(self, leaves=self.leaves[index], rival=rival)

    def rivals(self, scores: Scores, count: int) -> Tensor:
        """The nodes (B, <= count) to aim at: those that the attacker wants, with the highest logits first."""
        logits = self.logits(scores)
        wanted = len(self._wanted) or logits.shape[1] - 1
        return logits.masked_fill(~self._wants(logits), -torch.inf).topk(min(count, wanted), dim=1).indices

    def aimed(self, rivals: Tensor) -> Self:
        """The same decision with the loss pushed towards one node (B,) an image."""
        return replace(self, rival=rivals)

    def under(self, loss: Loss) -> LevelObjective:
        """The same decision under another loss; below three nodes the ratio is the margin.

        Raises:
            ValueError: there is no such loss.
        """
        if loss not in LOSSES:
            raise ValueError(f"loss is {loss!r}; {', '.join(LOSSES)} are supported: choose one.")
        kind = LOSSES[loss]
        if kind is DifferenceOfLogitsRatio and len(self.cut.nodes) < 3:
            kind = Margin
        return kind(self.cut, self.leaves, readout=self.readout, towards=self.towards, rival=self.rival)

    @property
    def _wanted(self) -> tuple[int, ...]:
        return (self.towards,) if isinstance(self.towards, int) else self.towards or ()

    def _wants(self, logits: Tensor) -> Tensor:
        """(B, K) whether the attacker wants the node."""
        if self.towards is None:
            return torch.ones_like(logits, dtype=torch.bool).scatter(1, targets(self.cut, self.leaves)[:, None], False)
        wanted = columns(self._wanted, logits.device)
        return torch.zeros_like(logits, dtype=torch.bool).index_fill(1, wanted, True)

    def _sides(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        wants = self._wants(logits)
        return logits.masked_fill(~wants, -torch.inf).amax(1), logits.masked_fill(wants, -torch.inf).amax(1)


@dataclass(frozen=True, eq=False)
class CrossEntropy(LevelObjective):
    """-log softmax(logits)[true node], in nats; with `towards`, +log of the wanted nodes' probability (a targeted
    attack); aimed at a rival, +log of its probability."""

    def loss(self, logits: Tensor, won: Tensor, lost: Tensor) -> Tensor:
        if self.rival is not None:
            return -F.cross_entropy(logits, self.rival, reduction="none")
        if self.towards is not None:
            return logits[:, columns(self._wanted, logits.device)].logsumexp(1) - logits.logsumexp(1)
        return F.cross_entropy(logits, targets(self.cut, self.leaves), reduction="none")


@dataclass(frozen=True, eq=False)
class Margin(LevelObjective):
    """max over wanted nodes of z - max over the others of z, positive exactly when the decision is a wanted one
    (Carlini & Wagner 2017): max_{c != y} z_c - z_y without `towards`. Aimed at a rival t: z_t - z_y."""

    def loss(self, logits: Tensor, won: Tensor, lost: Tensor) -> Tensor:
        return won - lost


@dataclass(frozen=True, eq=False)
class DifferenceOfLogitsRatio(LevelObjective):
    """The margin / (z_(1) - z_(3)), free of the logit scale (Croce & Hein 2020, equation 6); aimed at a rival,
    / (z_(1) - (z_(3) + z_(4)) / 2) (equation 7), and the margin itself where the level has only three nodes.

    Raises:
        ValueError: the cut has fewer than three nodes; use `Margin` there.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.cut.nodes) < 3:
            raise ValueError(
                f"level {self.cut.label} has {len(self.cut.nodes)} nodes; the difference of logits ratio needs 3: "
                "use the margin."
            )

    def loss(self, logits: Tensor, won: Tensor, lost: Tensor) -> Tensor:
        if self.rival is None:
            largest = logits.topk(3, dim=1).values
            return (won - lost) / (largest[:, 0] - largest[:, 2]).clamp(min=TIE)
        if logits.shape[1] < 4:
            return won - lost
        largest = logits.topk(4, dim=1).values
        return (won - lost) / (largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2).clamp(min=TIE)


TIE = 1e-12
"""Keeps a ratio finite when the largest logits are equal."""
LOSSES: dict[Loss, type[LevelObjective]] = {
    "cross_entropy": CrossEntropy,
    "margin": Margin,
    "ratio": DifferenceOfLogitsRatio,
}


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """sum_i weights_i * objectives_i: every level at once (docs/method.md, section 5, step 4, without the hierarchical
    negatives)."""

    objectives: tuple[Objective, ...]
    weights: tuple[float, ...]

    def __call__(self, scores: Scores) -> Tensor:
        terms = [weight * objective(scores) for weight, objective in zip(self.weights, self.objectives, strict=True)]
        return torch.stack(terms).sum(0)

    def lead(self, scores: Scores) -> Tensor:
        """(B,) the least of the leads: positive when all of the objectives are achieved."""
        return torch.stack([objective.lead(scores) for objective in self.objectives]).amin(0)

    def take(self, index: Tensor) -> Self:
        return replace(self, objectives=tuple(objective.take(index) for objective in self.objectives))


@dataclass(frozen=True, eq=False)
class EveryLevel(WeightedSum):
    """A weighted sum over decisions, which can be aimed as one: at each level's own k-th rival in the k-th run."""

    objectives: tuple[LevelObjective, ...]

    def rivals(self, scores: Scores, count: int) -> Tensor:
        """The nodes (B, <= count, levels) to aim at; a level that has fewer repeats its last."""
        found = [objective.rivals(scores, count) for objective in self.objectives]
        if any(nodes.shape[1] == 0 for nodes in found):
            return scores.nodes.new_zeros(len(scores.nodes), 0, len(found), dtype=torch.long)
        order = torch.arange(max(nodes.shape[1] for nodes in found), device=scores.nodes.device)
        return torch.stack([nodes[:, order.clamp(max=nodes.shape[1] - 1)] for nodes in found], dim=2)

    def aimed(self, rivals: Tensor) -> EveryLevel:
        """Every level pushed towards one node of its own; `rivals` (B, levels)."""
        pairs = zip(self.objectives, rivals.unbind(1), strict=True)
        return replace(self, objectives=tuple(objective.aimed(own) for objective, own in pairs))

    def under(self, loss: Loss) -> EveryLevel:
        """The same decisions under another loss."""
        return replace(self, objectives=tuple(objective.under(loss) for objective in self.objectives))


@dataclass(frozen=True, eq=False)
class EmbeddingShift:
    """|f(x) - reference|^2, summed over dimensions, of un-normalised embeddings (FARE, Schlarmann et al. 2024,
    equation 3)."""

    reference: Tensor

    def __call__(self, scores: Scores) -> Tensor:
        return (scores.points - self.reference).square().sum(1)

    def lead(self, scores: Scores) -> Tensor:
        """-inf (B,): no decision is attacked, so no image is ever done."""
        return scores.points.new_full((len(scores.points),), -torch.inf)

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

    def lead(self, scores: Scores) -> Tensor:
        """-inf (B,): no decision is attacked, so no image is ever done."""
        return scores.points.new_full((len(scores.points),), -torch.inf)

    def take(self, index: Tensor) -> SoftCrossEntropy:
        return replace(self, probabilities=self.probabilities[index])


def every_level(cuts: Sequence[Cut], leaves: Tensor) -> EveryLevel:
    """The mean cross-entropy over all given cuts: the attack that threatens every level at once."""
    return EveryLevel(tuple(CrossEntropy(cut, leaves) for cut in cuts), (1 / len(cuts),) * len(cuts))
