"""Search in low precision, believe in full precision only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robustree.attacks.contract import Attack, achieved
from robustree.attacks.noise import ImageNoise
from robustree.attacks.threat import Threat


@dataclass(frozen=True)
class LowPrecision:
    """Any attack with the model under autocast to `dtype`; what does not hold in full precision is attacked again.

    Every image is judged once in full precision. Those that achieve the objective there are returned; the others,
    whether the search claimed them or not, get the whole attack in full precision, with the same random numbers. So an
    image that the attack in full precision breaks is broken here too, and an image that stands comes out exactly as
    from that attack. It saves time where most images fall, and costs more than it saves where most stand or where the
    objective is about no decision. A random model belongs inside: Expectation(LowPrecision(attack))."""

    attack: Attack
    dtype: torch.dtype = field(default=torch.bfloat16, kw_only=True)

    def __post_init__(self) -> None:
        if self.dtype not in (torch.bfloat16, torch.float16):
            raise ValueError(
                f"LowPrecision has dtype {self.dtype}; torch.bfloat16 and torch.float16 are low: choose one."
            )

    @property
    def name(self) -> str:
        return f"{self.attack.name}-{str(self.dtype).removeprefix('torch.')}"

    def __call__(
        self,
        f: Callable[[Tensor], Any],
        images: Tensor,
        objective: Any,
        threat: Threat,
        *,
        generator: torch.Generator | ImageNoise,
        batch_size: int | None = None,
    ) -> Tensor:
        def low(x: Tensor) -> Any:
            with torch.autocast(x.device.type, dtype=self.dtype):
                return f(x)

        def full(x: Tensor) -> Any:
            with torch.autocast(x.device.type, enabled=False):
                return f(x)

        images = images.detach()
        noise = generator
        if isinstance(noise, torch.Generator):
            noise = ImageNoise.drawn(noise, len(images), images.device)
        made = self.attack(low, images, objective, threat, generator=noise, batch_size=batch_size)
        again = (~achieved(full, made, objective, batch_size)).nonzero()[:, 0]
        if len(again):
            rest, own = objective.take(again), noise.take(again)
            better = self.attack(full, images[again], rest, threat, generator=own, batch_size=batch_size)
            made = made.index_copy(0, again, better)
        return made
