"""Transfer: adversarial images made on other models, shown to the model under audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustree.attacks.contract import Attack
from robustree.attacks.expectation import MeanObjective
from robustree.attacks.noise import ImageNoise
from robustree.attacks.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Any attack on the mean objective over `sources` (after Liu et al. 2017, who average probabilities); the model
    under audit is never called.

    An image counts as achieved when all sources are deceived, so with `stop` it goes on until then. Sources answer in
    the form that the objective reads. An audited model that such images deceive more often than attacks on itself do
    hides its gradients."""

    attack: Attack
    sources: tuple[Callable[[Tensor], Any], ...]
    name: str

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError(f"the transfer attack {self.name!r} has no sources: give it one model or more.")

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
        """The images that the attack makes on the sources; `f` is ignored."""

        def answers(x: Tensor) -> list[Any]:
            return [source(x) for source in self.sources]

        mean = MeanObjective(objective, quorum=len(self.sources))
        return self.attack(answers, images, mean, threat, generator=generator, batch_size=batch_size)
