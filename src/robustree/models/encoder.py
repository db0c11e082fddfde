"""The one shape every vision-language model takes here: pixels in [0, 1] in, embeddings out.

Resizing and normalisation happen inside `ImageEncoder`, so an attack on pixels differentiates through them, and eps
always means a change of pixel values at the resolution that the user's images have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Interpolation = Literal["bicubic", "bilinear"]
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a tower wants its pixels.

    `resolution`: side of the square it sees. `mean`, `std`: per channel, in units of [0, 1]. `crop`: scale the
    shorter side and cut the centre (CLIP); otherwise both sides are scaled (SigLIP)."""

    resolution: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: bool = True
    interpolation: Interpolation = "bicubic"


class Pooled(NamedTuple):
    """What a tower returns, under the name that transformers' towers have for it."""

    pooler_output: Tensor


class ImageEncoder(nn.Module):
    """Images (B, 3, H, W) in [0, 1], any H and W -> un-normalised embeddings (B, D)."""

    mean: Tensor
    std: Tensor

    def __init__(self, tower: nn.Module, projection: nn.Module, preprocessing: Preprocessing):
        super().__init__()
        self.tower = tower
        self.projection = projection
        self.preprocessing = preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        pixels = (fit(images, self.preprocessing) - self.mean) / self.std
        return self.projection(self.tower(pixel_values=pixels).pooler_output)


def fit(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Images (B, 3, H, W) at the tower's resolution (B, 3, R, R), differentiable; the identity when they already
    fit."""
    side = preprocessing.resolution
    height, width = images.shape[-2:]
    if (height, width) == (side, side):
        return images
    if preprocessing.crop:
        shorter = min(height, width)
        target = (side * height // shorter, side * width // shorter)  # rounded down, as CLIP's own preprocessing does
    else:
        target = (side, side)
    resized = F.interpolate(
        images, size=target, mode=preprocessing.interpolation, antialias=True, align_corners=False
    ).clamp(0, 1)
    top, left = (target[0] - side) // 2, (target[1] - side) // 2
    return resized[..., top : top + side, left : left + side]


@dataclass(frozen=True, kw_only=True)
class VisionLanguageModel:
    """A CLIP-like model, taken apart where hierarchical hardening needs it.

    `image_encoder`: images -> embeddings (B, D). `text_features`: prompts -> features (N, H) *before* the projection,
    without gradient. `text_projection`: features -> embeddings (N, D). `logit_scale`: the trained 1 / temperature.
    `save`: writes the directory that transformers' `from_pretrained` opens, with the weights as they are now."""

    name: str
    image_encoder: ImageEncoder
    text_features: Callable[[Sequence[str]], Tensor]
    text_projection: nn.Linear
    logit_scale: float
    save: Callable[[Path], None]

    def to(self, device: torch.device | str) -> VisionLanguageModel:
        """Move both towers to `device`, in place; returns the same object."""
        self.image_encoder.to(device)
        self.text_projection.to(device)
        return self
