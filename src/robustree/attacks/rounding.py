"""Adversarial images as 8-bit files hold them: rounding that keeps the attack and the threat."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustree.attacks.threat import Threat

MANNERS = ("nearest", "outward", "inward")
"""In the order of preference: to the nearest byte; away from the original; towards it (always inside the ball)."""


@dataclass(frozen=True)
class Rounded:
    """`images` (B, 3, H, W), multiples of 1/255 inside the threat; `kept` (B,): the attack still works; B `manners`."""

    images: Tensor
    kept: Tensor
    manners: tuple[str, ...]


def round_to_bytes(adversarial: Tensor, clean: Tensor, threat: Threat, *, works: Callable[[Tensor], Tensor]) -> Rounded:
    """Round images (B, 3, H, W) to multiples of 1/255, as PNG files hold them.

    `clean` must be such multiples; `works` tells (B,) where an attack holds. Of the ways in `MANNERS` each image gets
    the first that stays inside the threat and keeps the attack, otherwise the first that stays inside. Under linf
    changes are cut at floor(255 eps) bytes.

    Raises:
        ValueError: eps is below 1/255 (linf), so that no other 8-bit image is allowed.
    """
    reach = math.floor(threat.eps * 255 + 1e-6) if threat.norm == "linf" else 255
    if reach < 1:
        raise ValueError(
            f"eps is {threat.eps * 255:g}/255; an 8-bit image changes by 1/255 at least: give an eps of 1/255 or more."
        )
    origin, change = (clean * 255).round(), (adversarial - clean) * 255
    size = change.abs()
    chosen = torch.full((len(clean),), -1, device=clean.device)
    working = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
    images = clean.clone()
    for number, rounded in enumerate((size.round(), size.ceil(), size.floor())):
        candidate = (origin + change.sign() * rounded.clamp(max=reach)).clamp(0, 255) / 255
        inside = threat.contains(candidate, clean)
        holds = inside & works(candidate)
        better = (holds & ~working) | (inside & (chosen < 0))
        images[better], chosen[better] = candidate[better], number
        working |= holds
    return Rounded(images, working, tuple(MANNERS[number] for number in chosen.tolist()))
