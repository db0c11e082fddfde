"""What an attack asks of an objective, and what everything asks of an attack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from robustree.attacks.noise import ImageNoise
from robustree.attacks.threat import Threat


class Objective(Protocol):
    """What an attack maximises: the model's output -> (B,).

    `lead` (B,) says how far the decision is on the attacker's side: positive exactly when it is what the attacker
    wants, whatever the objective; -inf where no decision is attacked. `take(index)` is the same objective for some
    images of the batch."""

    def __call__(self, scores: Any, /) -> Tensor: ...

    def lead(self, scores: Any, /) -> Tensor: ...

    def take(self, index: Tensor, /) -> Objective: ...


class Aimable(Objective, Protocol):
    """An objective over a decision between classes, which can be aimed at one wrong class after another.

    `rivals(scores, count)` (B, min(count, classes to aim at)): the most likely wrong classes, best first;
    `aimed(rivals)`, with one class (B,) an image: the objective that pushes towards it; the decision that is wanted
    stays the same."""

    def rivals(self, scores: Any, count: int, /) -> Tensor: ...

    def aimed(self, rivals: Tensor, /) -> Objective: ...


class Attack(Protocol):
    """The one contract: images (B, ...) inside `threat` that maximise `objective(f(images))`.

    `generator`: the source of the images' seeds, or the seeds themselves. `batch_size`: how many images the model sees
    at once (all, if left out); it changes the speed, and the result only where the model rounds by it."""

    @property
    def name(self) -> str: ...

    def __call__(
        self,
        f: Callable[[Tensor], Any],
        images: Tensor,
        objective: Any,
        threat: Threat,
        *,
        generator: torch.Generator | ImageNoise,
        batch_size: int | None = None,
    ) -> Tensor: ...


@torch.no_grad()
def achieved(f: Callable[[Tensor], Any], images: Tensor, objective: Any, batch_size: int | None) -> Tensor:
    """(B,) whether the decision about each image is what the attacker wants."""
    parts = torch.arange(len(images), device=images.device).split(batch_size or max(1, len(images)))
    return torch.cat([objective.take(part).lead(f(images[part])) > 0 for part in parts])
