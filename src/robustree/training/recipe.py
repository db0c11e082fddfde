"""A run as a value: everything that decides its result, in one frozen record that goes to JSON and back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import get_args

from robustree.attacks import PGD, Threat
from robustree.geometry import Poincare, Space, Sphere
from robustree.methods import Hierarchical, Method
from robustree.tree_model import TEMPLATE, Depths, Precision


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One hardening run.

    `space`: the head that is trained (Sphere is CLIP's cosine head); `scale` multiplies its logit scale, which starts
    where the logit's slope in the cosine is CLIP's. `batch_size`: images an optimiser step, over all
    processes and `micro_batches`. `warmup`: fraction of `steps` over which the learning rate rises.
    `window`: None draws every epoch's order over all images; a number reads shards in order and draws from that many
    images at a time. `text_lr`: the text projection's rate as a fraction of `lr`. `attack.step_size` is in units of
    eps. `precision`: "bf16" runs the encoders under autocast, in the attack too; audits are always fp32."""

    method: Method
    space: Space = field(default_factory=Sphere)
    depths: Depths = field(default_factory=Depths)
    scale: float = 1.0
    template: str = TEMPLATE
    threat: Threat = field(default_factory=lambda: Threat(eps=4 / 255))
    attack: PGD = field(default_factory=lambda: PGD(steps=3, step_size=0.5, best=False))
    steps: int = 1000
    batch_size: int = 64
    micro_batches: int = 1
    window: int | None = None
    lr: float = 1e-5
    text_lr: float = 0.1
    weight_decay: float = 1e-4
    warmup: float = 0.1
    precision: Precision = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "micro_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it counts from 1: give a positive number.")
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batches {self.micro_batches}: "
                "choose a divisor."
            )
        if self.window is not None and self.window < self.batch_size:
            raise ValueError(
                f"window {self.window} is smaller than batch_size {self.batch_size}: choose a window of many batches."
            )
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"precision is {self.precision!r}; {' and '.join(get_args(Precision))} are supported: choose one."
            )
        if not self.text_lr > 0:
            raise ValueError(f"text_lr is {self.text_lr}; it is a fraction of lr: give a positive number.")
        if not self.scale > 0:
            raise ValueError(f"scale is {self.scale}; it multiplies the head's logit scale: give a positive number.")
        if not self.lr > 0 or self.weight_decay < 0 or not 0 <= self.warmup < 1:
            raise ValueError(
                f"lr {self.lr}, weight_decay {self.weight_decay}, warmup {self.warmup}: "
                "lr must be positive, weight_decay at least 0 and warmup in [0, 1)."
            )

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to 0: a function of the step alone, so that resuming needs no scheduler
        state."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.lr * (step + 1) / rise
        return self.lr * (1 + math.cos(math.pi * (step - rise) / max(1, self.steps - rise))) / 2


def hierarchical_recipe(**changes: object) -> Recipe:
    """HRFT as measured best on the embedded data: the Poincare ball of curvature -1 and the method's defaults."""
    return Recipe(**{"method": Hierarchical(), "space": Poincare(curvature=1.0)} | changes)  # type: ignore[arg-type]
