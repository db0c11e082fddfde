"""Projected gradient descent: sign (or normalised) ascent on any objective, inside any threat."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustree.attacks.noise import ImageNoise
from robustree.attacks.search import Search, State
from robustree.attacks.threat import Threat, per_image


@dataclass(frozen=True, kw_only=True)
class PGD(Search):
    """x <- project(x + step_size * ascent(d objective / d x)) from a random start (Madry et al. 2018, equation of
    section 2.1).

    `steps` gradients a restart; `step_size` in units of eps (0.25: a quarter of the radius a step). `momentum` mu > 0
    ascends g <- mu g + gradient / |gradient|_1 instead of the gradient (MI-FGSM, Dong et al. 2018, equation 6)."""

    steps: int = 20
    step_size: float = 0.25
    momentum: float = 0.0
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or not 0 < self.step_size < math.inf or not 0 <= self.momentum < math.inf:
            raise ValueError(
                f"PGD has steps {self.steps}, step_size {self.step_size}, momentum {self.momentum}: steps start at 1, "
                "step_size (in units of eps) is positive, momentum at least 0, and both are finite."
            )

    @property
    def name(self) -> str:
        aimed = f"-t{self.targets}" if self.targets else ""
        restarted = f"x{self.restarts}" if self.restarts > 1 else ""
        return f"{'mi-' if self.momentum else ''}pgd{aimed}-{self.steps}{restarted}"

    @property
    def evaluations(self) -> int:
        return self.steps + 1 if self.best else self.steps

    def begin(self, images: Tensor, threat: Threat, noise: ImageNoise, run: Tensor) -> State:
        x = threat.random_start(images, noise, run) if self.random_start else images
        return {"x": x, "centre": images} | ({"velocity": torch.zeros_like(images)} if self.momentum else {})

    def advance(self, state: State, values: Tensor, gradient: Tensor, achieved: Tensor, threat: Threat) -> State:
        if self.momentum:
            size = gradient.abs().flatten(1).sum(1).clamp(min=torch.finfo(gradient.dtype).tiny)
            gradient = self.momentum * state["velocity"] + gradient / per_image(size, gradient)
            state = {**state, "velocity": gradient}
        return {**state, "x": self._move(state["x"], gradient, state["centre"], threat)}

    def joint(
        self,
        f: Callable[..., Any],
        inputs: Sequence[Tensor],
        objective: Callable[[Any], Tensor],
        threats: Sequence[Threat],
        *,
        generator: torch.Generator,
    ) -> tuple[Tensor, ...]:
        """One ascent on several inputs at once (images and texts), each inside its own threat; returns the last
        iterates.

        This is the training attack: every input takes `steps` steps together, from random starts.

        Raises:
            ValueError: the attack has momentum, restarts, targets or stop, none of which this ascent takes.
        """
        if self.momentum or self.restarts > 1 or self.targets or self.stop:
            raise ValueError(
                f"{self.name} has momentum {self.momentum:g}, restarts {self.restarts}, targets {self.targets}, stop "
                f"{self.stop}; the training attack is one plain ascent: leave all four as they are by default."
            )
        centres = [x.detach() for x in inputs]
        moving = [
            threat.random_start(x, ImageNoise.drawn(generator, len(x), x.device), 0) if self.random_start else x.clone()
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
