"""Random numbers that belong to an image, not to its place in a batch.

torch's generators hand out one stream: what an image receives depends on who else is in the batch. Here every number
is a hash of (the image's seed, a counter, its position): the same for any batch size, order or resume point, and, but
for the rounding of normal numbers, on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Steele, Lea & Flood, "Fast splittable pseudorandom number generators" (2014): the constants of SplitMix64.
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True, eq=False)
class ImageNoise:
    """One stream of random numbers an image; `seeds` (B,) int64."""

    seeds: Tensor

    @staticmethod
    def drawn(generator: torch.Generator, count: int, device: torch.device) -> ImageNoise:
        """Fresh seeds for `count` images; two draws of 3 and 5 are one draw of 8."""
        return ImageNoise(torch.randint(2**62, (count,), generator=generator, device=generator.device).to(device))

    def take(self, index: Tensor) -> ImageNoise:
        """The streams of some of the images."""
        return ImageNoise(self.seeds[index])

    def fork(self, key: int) -> ImageNoise:
        """Other streams of the same images: one a key."""
        return ImageNoise(_mix(self.seeds ^ torch.tensor(key, device=self.seeds.device) * _signed(_SECOND)))

    def uniform(self, counter: Tensor | int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Numbers (B, *shape) from [0, 1); `counter`, one or (B,), names the draw: the same counter, the same
        numbers."""
        keys = _mix(_mix(self.seeds) + torch.as_tensor(counter, device=self.seeds.device) * _signed(_GOLDEN))
        place = torch.arange(math.prod(shape), device=self.seeds.device) * _signed(_GOLDEN)
        bits = 1 - round(math.log2(torch.finfo(dtype).eps))  # more than the mantissa holds would round up to 1
        whole = _shifted(_mix(keys[:, None] + place), 64 - bits).to(torch.promote_types(dtype, torch.float32))
        return (whole * 2.0**-bits).to(dtype).view(len(keys), *shape)

    def normal(self, counter: Tensor | int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Standard normal numbers (B, *shape), by Box and Muller's transform."""
        radius, angle = self.uniform(counter, (2, *shape), dtype).unbind(1)
        return (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * math.pi * angle)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _signed(_FIRST)
    z = (z ^ _shifted(z, 27)) * _signed(_SECOND)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, by: int) -> Tensor:
    """A shift that fills with zeros: int64's own repeats the sign."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
