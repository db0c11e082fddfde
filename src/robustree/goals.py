"""What an attack on images is to change: decisions at one level or at all, away from the truth or to some nodes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustree.objectives import CrossEntropy, EveryLevel, LevelObjective, Loss, Margin
from robustree.taxonomy import Cut


@dataclass(frozen=True)
class Goal:
    """What an attack is to change: the decisions at `cuts` (all at once if several), or one decision to `towards`, a
    node of the cut or several (the leaves of a subtree).

    `truth[cut.label]` (B,) is each image's right node, as an index into the cut.
    """

    cuts: tuple[Cut, ...]
    truth: dict[str, Tensor]
    towards: int | tuple[int, ...] | None = None

    def objective(self, loss: Loss | None) -> LevelObjective | EveryLevel:
        """What the attack maximises: a loss of one level (None: its decision, for a cascade), or the mean cross-entropy
        of several."""
        if len(self.cuts) == 1:
            cut = self.cuts[0]
            decision = Margin(cut, self._leaves(cut), towards=self.towards)
            return decision if loss is None else decision.under(loss)
        parts = tuple(CrossEntropy(cut, self._leaves(cut)) for cut in self.cuts)
        return EveryLevel(parts, (1 / len(parts),) * len(parts)).under(loss or "cross_entropy")

    def _leaves(self, cut: Cut) -> Tensor:
        """A leaf (B,) below each image's right node; which one does not matter, for a level looks at its node only."""
        truth = self.truth[cut.label]
        first = [cut.of_leaf.index(node) for node in range(len(cut.nodes))]
        return torch.tensor(first, device=truth.device)[truth]

    def reached(self, decided: dict[str, Tensor]) -> Tensor:
        """(B,) whether decisions are what the attack wants: wrong (at one level at least), or `towards`."""
        if self.towards is not None:
            wanted = (self.towards,) if isinstance(self.towards, int) else self.towards
            made = decided[self.cuts[0].label]
            return torch.isin(made, torch.tensor(wanted, device=made.device))
        wrong = [decided[cut.label] != self.truth[cut.label] for cut in self.cuts]
        return torch.stack(wrong).any(0)
