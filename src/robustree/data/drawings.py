"""Drawings with transparency, composed onto random backgrounds at load time.

A drawing is an RGBA square. An image that a model sees is that drawing scaled, turned, shifted and laid on a
background of two random colours, rounded to 8 bits. Training images are a function of (seed, step); test images of
(seed, position) only, so two people who audit the same split audit the same pixels."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Drawings:
    """RGBA drawings of one split: `rgba` (N, 4, S, S) uint8, `leaves` (N,) int64, `ids` N names such as "noto/dog"."""

    rgba: Tensor
    leaves: Tensor
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Tensor) -> Drawings:
        """The drawings at `index` (M,), in that order."""
        return replace(
            self, rgba=self.rgba[index], leaves=self.leaves[index], ids=tuple(self.ids[i] for i in index.tolist())
        )


def quickstart_classes() -> tuple[str, ...]:
    """The class names of the embedded emoji set, in label order."""
    return tuple(record["name"] for record in _index()["classes"])


def quickstart_drawings(split: Split) -> Drawings:
    """The embedded emoji drawings of one split; "test" holds two artists that no training image shows.

    Raises:
        ValueError: `split` is not train, val or test.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; the embedded set has {', '.join(SPLITS)}: choose one of these.")
    records = [record for record in _index()["images"] if record["split"] == split]
    slugs = [record["slug"] for record in _index()["classes"]]
    with zipfile.ZipFile(io.BytesIO(_folder().joinpath("images.zip").read_bytes())) as archive:
        pixels = [
            np.asarray(
                Image.open(io.BytesIO(archive.read(f"{record['style']}/{slugs[record['leaf']]}.webp"))).convert("RGBA")
            )
            for record in records
        ]
    return Drawings(
        rgba=torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),
        leaves=torch.tensor([record["leaf"] for record in records]),
        ids=tuple(record["id"] for record in records),
    )


def compose(drawings: Drawings, size: int, *, generator: torch.Generator, augment: bool) -> Tensor:
    """Images (B, 3, size, size) in [0, 1], multiples of 1/255: each drawing on a random background.

    Scale 0.75 to 1.0, rotation up to 15 degrees, shift up to 6 % and a two-colour background are always drawn. With
    `augment` the ranges grow and mirror images, contrast, colour and grey are varied too.
    """
    count = len(drawings)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    low, turn, shift = (0.6, 25.0, 0.12) if augment else (0.75, 15.0, 0.06)
    angle, scale = torch.deg2rad(uniform(-turn, turn)), uniform(low, 1.05 if augment else 1.0)
    flip = torch.sign(uniform(-1, 1)) if augment else torch.ones(count)
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    offset = uniform(-shift, shift, 2)
    affine = torch.stack(
        [torch.stack([cosine * flip, sine * flip, offset[:, 0]], 1), torch.stack([-sine, cosine, offset[:, 1]], 1)], 1
    )
    colour, alpha = drawings.rgba[:, :3].float() / 255, drawings.rgba[:, 3:].float() / 255
    if augment:
        grey = colour.mean(1, keepdim=True)
        saturation = torch.where(uniform(0, 1, 1, 1, 1) < 0.1, 0.0, uniform(0.5, 1.5, 1, 1, 1))
        colour = grey + (colour - grey) * saturation
        tint = uniform(0.85, 1.15, 3, 1, 1)
        colour = ((colour - 0.5) * uniform(0.6, 1.3, 1, 1, 1) + 0.5) * tint + uniform(-0.1, 0.1, 1, 1, 1)
        colour = colour.clamp(0, 1)
    # Twice the resolution, then averaged: a turned drawing keeps soft edges.
    grid = F.affine_grid(affine, [count, 4, 2 * size, 2 * size], align_corners=False)
    layer = F.grid_sample(torch.cat([colour * alpha, alpha], 1), grid, align_corners=False)
    layer = F.avg_pool2d(layer, 2)
    images = layer[:, :3] + (1 - layer[:, 3:]) * _background(count, size, uniform)
    return (images.clamp(0, 1) * 255).round() / 255


def _background(count: int, size: int, uniform) -> Tensor:
    """(B, 3, size, size): a ramp between two random colours in a random direction, with a faint coarse pattern."""
    first, second = uniform(0, 1, 3, 1, 1), uniform(0, 1, 3, 1, 1)
    direction = uniform(0, 2 * torch.pi, 1, 1)
    axis = torch.linspace(-0.5, 0.5, size)
    ramp = torch.cos(direction) * axis[None, None, :] + torch.sin(direction) * axis[None, :, None] + 0.5
    coarse = F.interpolate(uniform(-0.15, 0.15, 3, 4, 4), size=(size, size), mode="bilinear", align_corners=False)
    strength = uniform(0, 1, 1, 1, 1)
    return (first + (second - first) * ramp[:, None] + strength * coarse).clamp(0, 1)


def _folder():
    return files("robustree.data").joinpath("quickstart")


def _index() -> dict:
    return json.loads(_folder().joinpath("classes.json").read_text(encoding="utf-8"))
