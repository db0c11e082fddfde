"""Projected gradient descent: sign (or normalised) ascent on any objective, inside any threat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from robustree.attacks.threat import Threat


class Objective(Protocol):
    """What an attack maximises: the model's output -> (B,). `take(index)` is the same objective for some images of
    the batch."""

    def __call__(self, scores: Any, /) -> Tensor: ...

    def take(self, index: Tensor, /) -> Objective: ...


@dataclass(frozen=True, kw_only=True)
class PGD:
    """x <- project(x + step_size * ascent(d objective / d x)) from a random start (Madry et al. 2018, equation of
    section 2.1).

    `steps` gradients a restart; `step_size` in units of eps (0.25: a quarter of the radius a step). `best`: return
    for each image the iterate with the highest objective over all steps and restarts (one more forward); otherwise
    the last one. `stop_at`: an image whose objective exceeds this leaves the batch: with a margin objective and 0
    that is "the decision has changed", and results are those of the full run at a fraction of the forwards."""

    steps: int = 20
    step_size: float = 0.25
    restarts: int = 1
    random_start: bool = True
    best: bool = True
    stop_at: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1 or not self.step_size > 0:
            raise ValueError(
                f"PGD has steps {self.steps}, restarts {self.restarts}, step_size {self.step_size}: "
                "steps and restarts start at 1 and step_size (in units of eps) is positive."
            )
        if self.stop_at is not None and not self.best:
            raise ValueError("PGD has stop_at without best; stopping early returns the best iterate: set best=True.")

    @property
    def name(self) -> str:
        return f"pgd-{self.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "")

    def __call__(
        self,
        f: Callable[[Tensor], Any],
        images: Tensor,
        objective: Objective,
        threat: Threat,
        *,
        generator: torch.Generator,
    ) -> Tensor:
        """Adversarial images (B, 3, H, W) inside the threat. Noise of all restarts is drawn first, so that leaving
        images do not change the others."""
        images = images.detach()
        starts = [threat.random_start(images, generator) if self.random_start else images for _ in range(self.restarts)]
        best, height = images.clone(), torch.full((len(images),), -torch.inf, device=images.device, dtype=images.dtype)
        standing = torch.arange(len(images), device=images.device)
        for start in starts:
            x, index, goal = start[standing], standing, objective.take(standing)
            for step in range(self.steps + 1 if self.best else self.steps):
                x.requires_grad_(True)
                values = goal(f(x))
                if self.best:
                    risen = values.detach() > height[index]
                    best[index[risen]], height[index[risen]] = (
                        x.detach()[risen],
                        values.detach()[risen].to(height.dtype),
                    )
                    if step == self.steps:
                        break
                (gradient,) = torch.autograd.grad(values.sum(), x)
                x = self._move(x.detach(), gradient, images[index], threat)
                if self.stop_at is not None:
                    on = height[index] <= self.stop_at
                    if not bool(on.all()):
                        keep = on.nonzero()[:, 0]
                        x, index = x[keep], index[keep]
                        goal = objective.take(index)
                        if len(index) == 0:
                            break
            if not self.best:
                best[index] = x.detach()
            standing = index
            if len(standing) == 0:
                break
        return best

    def joint(
        self,
        f: Callable[..., Any],
        inputs: Sequence[Tensor],
        objective: Objective,
        threats: Sequence[Threat],
        *,
        generator: torch.Generator,
    ) -> tuple[Tensor, ...]:
        """One ascent on several inputs at once (images and texts), each inside its own threat; returns the last
        iterates.

        This is the training attack: every input takes `steps` steps together, from random starts.
        """
        centres = [x.detach() for x in inputs]
        moving = [
            threat.random_start(x, generator) if self.random_start else x.clone()
            for x, threat in zip(centres, threats, strict=True)
        ]
        for _ in range(self.steps):
            moving = [x.requires_grad_(True) for x in moving]
            gradients = torch.autograd.grad(objective(f(*moving)).sum(), moving)
            moving = [
                self._move(x.detach(), gradient, centre, threat)
                for x, gradient, centre, threat in zip(moving, gradients, centres, threats, strict=True)
            ]
        return tuple(moving)

    def _move(self, x: Tensor, gradient: Tensor, centre: Tensor, threat: Threat) -> Tensor:
        return threat.project(x + self.step_size * threat.eps * threat.ascent(gradient), centre)
