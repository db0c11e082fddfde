"""What a run cost, as one line."""

from __future__ import annotations

import time

import torch

from robustree.training import Progress, Recipe
from robustree.training.cost import matmul_peak, operations_an_image, peak_memory, rounded
from robustree.tree_model import TreeModel


class Pace:
    """A listener to training steps: images a second from the end of the first step on, which warms up and compiles."""

    def __init__(self) -> None:
        self._first, self._last, self._images = 0.0, 0.0, 0

    def __call__(self, progress: Progress) -> None:
        self._last = time.monotonic()
        if self._first:
            self._images += progress.images
        else:
            self._first = self._last

    @property
    def images_a_second(self) -> float | None:
        """None before the end of the second step."""
        return self._images / (self._last - self._first) if self._images else None


def cost_line(
    speed: float, model: TreeModel, recipe: Recipe, side: int, *, device: torch.device, processes: int
) -> str:
    """Speed, operations an image, the fraction of this machine's matmul peak (measured now), and peak memory."""
    memory = f"peak memory {peak_memory(device) / 1e9:.1f} GB{' a process' if processes > 1 else ''}"
    operations = operations_an_image(model, recipe, side)
    share = speed * operations / processes / matmul_peak(device, recipe.precision)
    rate, size, percent = (rounded(value) for value in (speed, operations / 1e9, 100 * share))
    return f"{rate} images/s, {size} GFLOP an image, {percent} % of the matmul peak, {memory}"
