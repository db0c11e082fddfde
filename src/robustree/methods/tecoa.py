"""TeCoA: text-guided contrastive adversarial training (Mao et al., ICLR 2023, arXiv 2212.07016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from robustree.methods.method import Adversarial, Context
from robustree.objectives import CrossEntropy


@dataclass(frozen=True, kw_only=True)
class TeCoA:
    """L = mean_i CE(scale * cos(f(x_i + delta_i), t), y_i) over all leaf classes, image to text only; the attack
    maximises the same."""

    trains_text = False
    text_threat = None

    def inner(self, context: Context) -> Sequence[CrossEntropy]:
        return (CrossEntropy(context.forest.leaf_cut, context.leaves),)

    def loss(self, context: Context, adversarial: Sequence[Adversarial]) -> tuple[Tensor, dict[str, Tensor]]:
        loss = CrossEntropy(context.forest.leaf_cut, context.leaves)(adversarial[0].scores).mean()
        return loss, {"cross_entropy": loss.detach()}
