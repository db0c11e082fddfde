"""Images for audits and for training; those of files are decoded a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from robustree.data.decoding import Decoded, Pixels
from robustree.data.encoded import EncodedImages
from robustree.data.splits import stratified


class TrainingImages(Protocol):
    @property
    def leaves(self) -> Tensor: ...

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class AuditImages:
    """Images (N, 3, H, W) in [0, 1] that never change, their classes (N,) and names.

    `pixels[index]` makes a batch; only what is embedded is in memory as a whole."""

    pixels: Pixels
    leaves: Tensor
    ids: tuple[str, ...]

    def subset(self, count: int | None, *, seed: int = 0) -> AuditImages:
        """A fixed subset that covers the classes as evenly as `count` allows; all images for None."""
        if count is None or count == len(self.ids):
            return self
        index = stratified(self.leaves, count, seed=seed)
        taken = self.pixels.take(index) if isinstance(self.pixels, Decoded) else self.pixels[index]
        return AuditImages(taken, self.leaves[index], tuple(self.ids[i] for i in index.tolist()))


def audited(images: EncodedImages, resolution: int) -> AuditImages:
    """The images of files as they are, for audits."""
    return AuditImages(Decoded(images, resolution), images.leaves, images.ids)


@dataclass(frozen=True, eq=False)
class Augmented:
    """The images of files for training: mirrored at random, shifted by up to a sixteenth of the side."""

    pixels: Decoded

    @property
    def leaves(self) -> Tensor:
        return self.pixels.images.leaves

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 3, R, R) in [0, 1]."""
        return augment(self.pixels[index], generator)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, 3, R, R) mirrored at random and shifted by up to a sixteenth of the side."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    images[flip] = images[flip].flip(-1)
    reach, side = max(1, images.shape[-1] // 16), images.shape[-1]
    shifts = torch.randint(-reach, reach + 1, (len(images), 2), generator=generator)
    padded = torch.nn.functional.pad(images, (reach,) * 4, mode="replicate")
    return torch.stack(
        [
            image[:, reach + int(y) : reach + int(y) + side, reach + int(x) : reach + int(x) + side]
            for image, (y, x) in zip(padded, shifts, strict=True)
        ]
    )
