"""Auto-PGD: momentum ascent that halves its own step and goes back to the best point when progress stalls."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from robustree.attacks.noise import ImageNoise
from robustree.attacks.search import Search, State
from robustree.attacks.threat import Threat, per_image

FIRST, SHORTER, SHORTEST = 0.22, 0.03, 0.06
"""Share of all steps before the first check of progress, by which intervals shrink, and of the shortest interval."""
KEPT = 0.75
"""Weight of the new direction against the last one (momentum)."""


@dataclass(frozen=True, kw_only=True)
class APGD(Search):
    """z = project(x + step * ascent(gradient)); x <- project(x + 0.75 (z - x) + 0.25 (x - previous x)) (Croce & Hein
    2020, section 3, equations 1 and 2), with step from 2 eps downwards.

    At each checkpoint an image halves its step and goes back to its best point if fewer than `rho` of the steps since
    the last one raised its objective, or if neither its step nor its best objective has changed since then.

    The loss is the objective's: on cross-entropy this is APGD-CE, on the ratio APGD-DLR, with `targets=9` on the ratio
    APGD-T."""

    steps: int = 100
    rho: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or not 0 < self.rho < 1:
            raise ValueError(f"APGD has steps {self.steps} and rho {self.rho}: steps start at 1 and 0 < rho < 1.")

    @property
    def name(self) -> str:
        aimed = f"-t{self.targets}" if self.targets else ""
        return f"apgd{aimed}-{self.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "")

    @property
    def evaluations(self) -> int:
        return self.steps + 1

    def begin(self, images: Tensor, threat: Threat, noise: ImageNoise, run: Tensor) -> State:
        shape, dtype, count = images.shape[1:], images.dtype, len(images)
        # The start has length eps exactly, before it is clipped to the box.
        if threat.norm == "linf":
            draw = 2 * noise.uniform(run, shape, dtype) - 1
            delta = draw / per_image(draw.abs().flatten(1).amax(1), draw)
        else:
            delta = threat.ascent(noise.normal(run, shape, dtype))
        x = (images + threat.eps * delta).clamp(threat.low, threat.high)
        lowest = torch.full((count,), -torch.inf, dtype=dtype, device=images.device)
        return {
            "x": x,
            "centre": images,
            "before": x,
            "best": x,
            "best_gradient": torch.zeros_like(x),
            "best_value": lowest,
            "checked_value": lowest,
            # The first rise is counted against an objective of 0, as in the authors' code.
            "last_value": torch.zeros(count, dtype=dtype, device=images.device),
            "step": torch.full((count,), 2 * threat.eps, dtype=dtype, device=images.device),
            "halved": torch.ones(count, dtype=torch.bool, device=images.device),
            "rises": torch.zeros(count, dtype=torch.long, device=images.device),
            "looked": torch.zeros(count, dtype=torch.long, device=images.device),
        }

    def advance(self, state: State, values: Tensor, gradient: Tensor, achieved: Tensor, threat: Threat) -> State:
        x, first = state["x"], state["looked"] == 0
        rises = state["rises"] + ((values > state["last_value"]) & ~first)
        better = values > state["best_value"]
        wide = per_image(better, x)
        best, best_gradient = x.where(wide, state["best"]), gradient.where(wide, state["best_gradient"])
        best_value = values.where(better, state["best_value"])
        checked_value = best_value.where(first, state["checked_value"])

        window = _windows(self.steps, x.device)[state["looked"]]
        check = window > 0
        stalled = (rises <= self.rho * window) | (~state["halved"] & (checked_value >= best_value))
        halve = check & stalled
        point, direction = best.where(per_image(halve, x), x), best_gradient.where(per_image(halve, x), gradient)
        step = torch.where(halve, state["step"] / 2, state["step"])
        return {
            "x": self._move(point, direction, state, step, first, threat),
            "centre": state["centre"],
            "before": point,
            "best": best,
            "best_gradient": best_gradient,
            "best_value": best_value,
            "checked_value": best_value.where(check, checked_value),
            "last_value": values.where(~first, state["last_value"]),
            "step": step,
            "halved": stalled.where(check, state["halved"]),
            "rises": rises.masked_fill(check, 0),
            "looked": state["looked"] + 1,
        }

    def _move(self, x: Tensor, direction: Tensor, state: State, step: Tensor, first: Tensor, threat: Threat) -> Tensor:
        centre = state["centre"]
        ahead = threat.project(x + per_image(step, x) * threat.ascent(direction), centre)
        kept = per_image(torch.where(first, 1.0, KEPT).to(x.dtype), x)
        return threat.project(x + (ahead - x) * kept + (x - state["before"]) * (1 - kept), centre)


@lru_cache(maxsize=64)
def _windows(steps: int, device: torch.device) -> Tensor:
    """For each number of points looked at: 0, or, at a checkpoint, how many steps ago the last one was."""
    windows = [0] * (steps + 1)
    interval, at = max(int(FIRST * steps), 1), 0
    while at + interval <= steps:
        at += interval
        windows[at] = interval
        interval = max(interval - max(int(SHORTER * steps), 1), int(SHORTEST * steps), 1)
    return torch.tensor(windows, device=device)
