"""The embedded drawings as a data set: backgrounds and poses of audits are fixed, those of training are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustree.data.drawings import Drawings, compose, quickstart_drawings
from robustree.data.images import AuditImages

_AUDIT_SEED = 20260101  # backgrounds and poses of the audited drawings: never changed, so figures stay comparable


@dataclass(frozen=True)
class EmojiTraining:
    """The embedded drawings of the training artists, on a fresh background each time."""

    drawings: Drawings
    size: int

    @property
    def leaves(self) -> Tensor:
        return self.drawings.leaves

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor:
        return compose(self.drawings.take(index), self.size, generator=generator, augment=True)


def emoji_training(size: int) -> EmojiTraining:
    return EmojiTraining(quickstart_drawings("train"), size)


def emoji_audit(size: int, split: str = "test") -> AuditImages:
    """The audited drawings; "val" for tuning."""
    drawings = quickstart_drawings("val" if split == "val" else "test")
    pixels = compose(drawings, size, generator=torch.Generator().manual_seed(_AUDIT_SEED), augment=False)
    return AuditImages(pixels, drawings.leaves, drawings.ids)
