"""A patch: a small square in which pixels may change freely, all others staying exactly as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robustree.attacks.noise import ImageNoise
from robustree.attacks.search import Search, State
from robustree.attacks.threat import Threat, per_image

PLACE_DRAW = 1 << 41
"""Apart from every counter of a run: the place is independent of the pixels."""


@dataclass(frozen=True, kw_only=True)
class Patch(Search):
    """x <- project(x + step_size * eps * ascent(mask * gradient)) within a square window, after Brown et al. 2017,
    "Adversarial patch", here one patch an image at a fixed place.

    The side is the rounded root of `area` (share of the image, in (0, 1]) times its pixels, at least 1. The first
    restart looks at the image once and takes the window with the largest sum of |gradient|; every later one takes a
    random window with random pixels. What may happen inside the window is the threat's matter: Threat(eps=1)
    allows every pixel value. `steps` gradients a run after that; `step_size` in units of eps.

    Images are (B, C, H, W).

    Raises:
        ValueError: at the first image, if the images have another shape or the square does not fit into them.
    """

    area: float = 0.03
    steps: int = 100
    step_size: float = 0.05

    startable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.area <= 1:
            raise ValueError(f"Patch has area {self.area}; it is a share of the image: write 0.03 for 3 percent.")
        if self.steps < 1 or not 0 < self.step_size < math.inf:
            raise ValueError(
                f"Patch has steps {self.steps} and step_size {self.step_size}: steps start at 1 and step_size (in "
                "units of eps) is positive."
            )

    @property
    def name(self) -> str:
        aimed = f"-t{self.targets}" if self.targets else ""
        return f"patch-{self.area:g}{aimed}-{self.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "")

    @property
    def evaluations(self) -> int:
        return self.steps + 2 if self.best else self.steps + 1

    def side(self, height: int, width: int) -> int:
        """The side of the square in pixels.

        Raises:
            ValueError: it is longer than the image.
        """
        side = max(1, round(math.sqrt(self.area * height * width)))
        if side > min(height, width):
            raise ValueError(
                f"Patch has area {self.area}, a square of side {side}, and the images are {height} x {width}: choose "
                f"an area of at most {min(height, width) / max(height, width):.3g}."
            )
        return side

    def begin(self, images: Tensor, threat: Threat, noise: ImageNoise, run: Tensor) -> State:
        if images.ndim != 4:
            raise ValueError(f"Patch was given images of shape {tuple(images.shape)}; it needs (B, C, H, W).")
        height, width = images.shape[2:]
        side = self.side(height, width)
        down, right = noise.uniform(run + PLACE_DRAW, (2,), torch.float32).unbind(1)
        corner = torch.stack([down * (height - side + 1), right * (width - side + 1)], 1).long()
        mask = _square(corner, side, height, width)
        scouts = run < max(1, self.targets)
        drawn = threat.random_start(images, noise, run).where(mask, images)
        x = images.where(per_image(scouts, images), drawn)
        return {"x": x, "centre": images, "mask": mask, "scouts": scouts}

    def advance(self, state: State, values: Tensor, gradient: Tensor, achieved: Tensor, threat: Threat) -> State:
        x, centre = state["x"], state["centre"]
        height, width = x.shape[2:]
        side = self.side(height, width)
        strongest = _square(_strongest(gradient, side), side, height, width)
        mask = strongest.where(per_image(state["scouts"], x), state["mask"])
        step = self.step_size * threat.eps * threat.ascent(gradient.where(mask, 0))
        return {
            "x": threat.project(x + step, centre).where(mask, centre),
            "centre": centre,
            "mask": mask,
            "scouts": torch.zeros_like(state["scouts"]),
        }


def _strongest(gradient: Tensor, side: int) -> Tensor:
    """The top left corner (B, 2) of the window with the largest sum of |gradient|."""
    sums = F.avg_pool2d(gradient.abs().sum(1, keepdim=True), side, stride=1)
    place = sums.flatten(1).argmax(1)
    return torch.stack([place // sums.shape[3], place % sums.shape[3]], 1)


def _square(corner: Tensor, side: int, height: int, width: int) -> Tensor:
    """The window (B, 1, H, W) at its top left corner (B, 2)."""
    rows = torch.arange(height, device=corner.device) - corner[:, :1]
    columns = torch.arange(width, device=corner.device) - corner[:, 1:]
    down, across = (rows >= 0) & (rows < side), (columns >= 0) & (columns < side)
    return (down[:, :, None] & across[:, None, :])[:, None]
