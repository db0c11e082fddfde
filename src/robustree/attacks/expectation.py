"""Attacks on models that are random or have steps without a gradient (Athalye, Carlini & Wagner 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from robustree.attacks.contract import Attack
from robustree.attacks.noise import ImageNoise
from robustree.attacks.threat import Threat


@dataclass(frozen=True)
class Expectation:
    """Any attack on E[objective(f(x))]: values and gradients are means over `samples` forwards (EOT, section 4.2).

    The decision counts as achieved when it is in more than half of the samples. The model draws its own random
    numbers: the result repeats only where the model's do, and a fair score takes fresh draws. Graphs of all samples
    are held at once: lower `batch_size` if memory ends."""

    attack: Attack
    samples: int = field(default=20, kw_only=True)

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"Expectation has samples {self.samples}; they start at 1.")

    @property
    def name(self) -> str:
        return f"{self.attack.name}-eot{self.samples}"

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
        sampled, mean = averaged(f, objective, self.samples)
        return self.attack(sampled, images, mean, threat, generator=generator, batch_size=batch_size)


def averaged(
    f: Callable[[Tensor], Any], objective: Any, samples: int
) -> tuple[Callable[[Tensor], list[Any]], MeanObjective]:
    """The model asked `samples` times, and the mean objective over its answers, achieved by most of them."""

    def sampled(x: Tensor) -> list[Any]:
        return [f(x) for _ in range(samples)]

    return sampled, MeanObjective(objective, quorum=samples // 2 + 1)


@dataclass(frozen=True, eq=False)
class MeanObjective:
    """The mean of an objective over several outputs, achieved when it is in at least `quorum` of them."""

    objective: Any
    quorum: int = field(kw_only=True)

    def __call__(self, outputs: Sequence[Any]) -> Tensor:
        return torch.stack([self.objective(output) for output in outputs]).mean(0)

    def lead(self, outputs: Sequence[Any]) -> Tensor:
        """(B,) the `quorum`-th largest lead: positive when at least that many are."""
        leads = torch.stack([self.objective.lead(output) for output in outputs])
        return leads.sort(0, descending=True).values[self.quorum - 1]

    def take(self, index: Tensor) -> MeanObjective:
        return replace(self, objective=self.objective.take(index))

    def rivals(self, outputs: Sequence[Any], count: int) -> Tensor:
        """The classes (B, <= count) that the outputs name, by Borda's count: a first place among k is worth k points,
        a last place 1.

        Raises:
            ValueError: the objective is about several levels at once.
        """
        lists = [self.objective.rivals(output, count) for output in outputs]
        named = torch.cat(lists, 1)
        if named.ndim > 2:
            raise ValueError(
                f"the mean over several outputs was to be aimed at {named.shape[2]} levels at once; it can be aimed at "
                "one: attack one level, or set targets=0."
            )
        if named.numel() == 0:
            return lists[0]
        length = lists[0].shape[1]
        worth = torch.arange(length, 0, -1, device=named.device).repeat(len(lists)).expand_as(named)
        points = worth.new_zeros(len(named), int(named.max()) + 1).scatter_add(1, named, worth)
        return points.argsort(dim=1, descending=True, stable=True)[:, :length]

    def aimed(self, rivals: Tensor) -> MeanObjective:
        return replace(self, objective=self.objective.aimed(rivals))

    def under(self, loss: Any) -> MeanObjective:
        return replace(self, objective=self.objective.under(loss))


def straight_through(defence: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The defence forwards and the identity backwards: gradients for a step that has none (BPDA, section 4.1.1).

    `defence` maps images (B, ...) to images of the same shape; attack f(x) = model(straight_through(defence)(x)).

    Raises:
        ValueError: when called, if the defence changes the shape.
    """

    def defended(images: Tensor) -> Tensor:
        with torch.no_grad():
            output = defence(images)
        if output.shape != images.shape:
            raise ValueError(
                f"the defence turns images of shape {tuple(images.shape)} into {tuple(output.shape)}, and the identity "
                "cannot stand for it backwards: keep resizing outside of it."
            )
        # The difference is zero, so the values are the defence's own.
        return output + (images - images.detach())

    return defended
