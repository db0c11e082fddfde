"""FARE: fine-tuning for adversarially robust embeddings (Schlarmann et al., ICML 2024, arXiv 2402.12336)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from robustree.methods.method import Adversarial, Context
from robustree.objectives import EmbeddingShift


@dataclass(frozen=True, kw_only=True)
class FARE:
    """L = mean_i |f(x_i + delta_i) - f_0(x_i)|^2 on un-normalised embeddings, without labels; the attack maximises
    the same.

    The reference is the frozen embedding of the *clean* image, so at step 0 the inner objective is exactly 0 on clean
    images."""

    trains_text = False
    text_threat = None

    def inner(self, context: Context) -> Sequence[EmbeddingShift]:
        return (EmbeddingShift(context.frozen(context.images).points),)

    def loss(self, context: Context, adversarial: Sequence[Adversarial]) -> tuple[Tensor, dict[str, Tensor]]:
        shift = self.inner(context)[0](adversarial[0].scores).mean()
        return shift, {"embedding_shift": shift.detach()}
