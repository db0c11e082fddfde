"""AGFT: adversarial fine-tuning guided by the pretrained model's soft labels (CVPR 2026; docs/methods.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from robustree.methods.method import Adversarial, Context
from robustree.objectives import SoftCrossEntropy


@dataclass(frozen=True, kw_only=True)
class AGFT:
    """L = mean_i CE(softmax(sharpness * z(x^_i)), q_i), q_i = softmax(sharpness * softening * z_0(x_i)); no hard
    labels.

    z are the leaf logits at CLIP's scale. The authors use scale 180 (CLIP's 100 times `sharpness` 1.8) and soften the
    frozen model's by 0.4. The attack maximises the same loss."""

    sharpness: float = 1.8
    softening: float = 0.4

    trains_text = False
    text_threat = None

    def __post_init__(self) -> None:
        for name, value in (("sharpness", self.sharpness), ("softening", self.softening)):
            if not 0 < value < math.inf:
                raise ValueError(
                    f"{name} is {value}; it multiplies logits, so it is finite and above 0: give 1 for none."
                )

    def inner(self, context: Context) -> Sequence[SoftCrossEntropy]:
        leaf = context.forest.leaf_cut
        soft = F.softmax(self.sharpness * self.softening * context.frozen(context.images).at(leaf), dim=1)
        return (SoftCrossEntropy(leaf, soft, self.sharpness),)

    def loss(self, context: Context, adversarial: Sequence[Adversarial]) -> tuple[Tensor, dict[str, Tensor]]:
        loss = self.inner(context)[0](adversarial[0].scores).mean()
        return loss, {"soft_cross_entropy": loss.detach()}
