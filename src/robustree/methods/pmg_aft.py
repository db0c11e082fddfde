"""PMG-AFT: pre-trained model guided adversarial fine-tuning (Wang et al., CVPR 2024, arXiv 2401.04350)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from robustree.methods.method import Adversarial, Context
from robustree.objectives import CrossEntropy
from robustree.tree_model import Scores


@dataclass(frozen=True, kw_only=True)
class PMGAFT:
    """L = CE(x^) + general * KL(frozen(x^) || tuned(x^)) + clean * KL(tuned(x) || tuned(x^)); the attack maximises CE.

    Paper form: CLIP's temperature and batch means. The released code has temperature 1 and sums:
    `temperature_free=True` and weights multiplied by the batch size reproduce it (docs/methods.md).
    """

    general: float = 1.0
    clean: float = 1.0
    temperature_free: bool = False

    trains_text = False
    text_threat = None

    def __post_init__(self) -> None:
        for name, value in (("general", self.general), ("clean", self.clean)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; weights are at least 0: 0 switches the part off.")

    def inner(self, context: Context) -> Sequence[CrossEntropy]:
        return (CrossEntropy(context.forest.leaf_cut, context.leaves),)

    def loss(self, context: Context, adversarial: Sequence[Adversarial]) -> tuple[Tensor, dict[str, Tensor]]:
        leaf, temperature = context.forest.leaf_cut, context.head.scale if self.temperature_free else 1.0
        attacked = F.log_softmax(adversarial[0].scores.at(leaf) / temperature, dim=1)
        robust = F.nll_loss(attacked, context.leaves)

        def divergence(scores: Scores) -> Tensor:
            other = F.log_softmax(scores.at(leaf) / temperature, dim=1)
            return F.kl_div(attacked, other, log_target=True, reduction="batchmean")

        terms = {"cross_entropy": robust}
        if self.general:
            terms["general"] = divergence(context.frozen(adversarial[0].images))
        if self.clean:
            terms["clean"] = divergence(context.tuned(context.images))
        loss = terms["cross_entropy"] + self.general * terms.get("general", 0.0) + self.clean * terms.get("clean", 0.0)
        return loss, {name: value.detach() for name, value in terms.items()}
