"""AutoAttack on any decision: a cascade in which every attack meets only the images that the ones before left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from robustree.attacks.apgd import APGD
from robustree.attacks.contract import Aimable, achieved
from robustree.attacks.expectation import averaged
from robustree.attacks.fab import FAB
from robustree.attacks.noise import ImageNoise
from robustree.attacks.search import Search
from robustree.attacks.square import Square
from robustree.attacks.threat import Threat

Version = Literal["fast", "standard", "rand"]
Loss = Literal["cross_entropy", "margin", "ratio"]
PATIENCE = 20
"""FAB's runs end after so many moves without a closer point."""


class Decision(Aimable, Protocol):
    """An objective about one decision that can be attacked through several losses: `under(loss)`."""

    def take(self, index: Tensor, /) -> Decision: ...

    def under(self, loss: Loss, /) -> Aimable: ...


class Stage(NamedTuple):
    """One attack of the cascade: its name, the attack, and the loss it maximises."""

    name: str
    attack: Search
    loss: Loss


class Broken(NamedTuple):
    """What a cascade found: images (B, ...) and the stage that broke each, (B,): 0 for those that needed no attack, k
    for stage k, -1 for those that no stage broke (they come as the first stage left them)."""

    images: Tensor
    stage: Tensor


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """APGD on cross-entropy, then APGD-T on the ratio; `standard` adds FAB-T and Square (Croce & Hein 2020, section 5);
    `rand`, for models that are random, is APGD on cross-entropy and on the ratio, with means over `samples` forwards.

    `optimism`: runs that can no longer succeed end early (`Foresight`), and so do FAB's that have stopped coming
    closer: a fraction of the time on a robust model, and the same images fall (benchmarks/attacks.md); None takes every
    step of the authors. `rand` always does: its leads are noisy.

    `targets` wrong classes are aimed at, fewer on levels that have fewer; below 4 classes the ratio's aimed form is the
    margin, below 3 all of it. Leaf and superclass decisions, direct, via leaf or summed, are all the same to it."""

    version: Version = "standard"
    steps: int = 100
    targets: int = 9
    queries: int = 5000
    samples: int = 20
    optimism: float | None = 4.0

    def __post_init__(self) -> None:
        if self.version not in get_args(Version):
            raise ValueError(
                f"version is {self.version!r}; {', '.join(get_args(Version))} are the cascades: choose one."
            )
        if self.steps < 1 or self.targets < 1 or self.queries < 1 or self.samples < 1:
            raise ValueError(
                f"AutoAttack has steps {self.steps}, targets {self.targets}, queries {self.queries}, samples "
                f"{self.samples}; all of them start at 1."
            )

    @property
    def name(self) -> str:
        return f"autoattack-{self.version}"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The attacks in their order."""
        apgd = APGD(steps=self.steps, stop=True)
        if self.version == "rand":
            return Stage("apgd-ce", apgd, "cross_entropy"), Stage("apgd-dlr", apgd, "ratio")
        apgd = replace(apgd, optimism=self.optimism)
        fast = (
            Stage("apgd-ce", apgd, "cross_entropy"),
            Stage("apgd-t", replace(apgd, targets=self.targets), "ratio"),
        )
        if self.version == "fast":
            return fast
        patience = None if self.optimism is None else PATIENCE
        fab = FAB(steps=self.steps, targets=self.targets, patience=patience, stop=True)
        square = Square(queries=self.queries, optimism=self.optimism, stop=True)
        return *fast, Stage("fab-t", fab, "margin"), Stage("square", square, "margin")

    def __call__(
        self,
        f: Callable[[Tensor], Any],
        images: Tensor,
        objective: Decision,
        threat: Threat,
        *,
        generator: torch.Generator | ImageNoise,
        batch_size: int | None = None,
    ) -> Tensor:
        return self.run(f, images, objective, threat, generator=generator, batch_size=batch_size).images

    def run(
        self,
        f: Callable[[Tensor], Any],
        images: Tensor,
        objective: Decision,
        threat: Threat,
        *,
        generator: torch.Generator | ImageNoise,
        batch_size: int | None = None,
    ) -> Broken:
        """The adversarial images, and which stage broke which.

        Raises:
            ValueError: the objective is about no decision or, but for `rand`, about a level of one node.
        """
        if not hasattr(objective, "under"):
            raise ValueError(
                f"{self.name} attacks a decision, and {type(objective).__name__} is about none: choose another attack."
            )
        images = images.detach()
        if self.version == "rand":
            f, objective = averaged(f, objective, self.samples)  # type: ignore[assignment]
        noise = generator
        if isinstance(generator, torch.Generator):
            noise = ImageNoise.drawn(generator, len(images), images.device)
        made, stage = images.clone(), torch.full((len(images),), -1, device=images.device)
        stage[achieved(f, images, objective, batch_size)] = 0
        for number, (_, attack, loss) in enumerate(self.stages, start=1):
            left = (stage == -1).nonzero()[:, 0]
            if len(left) == 0:
                break
            aim = objective.take(left).under(loss)
            own = noise.take(left).fork(number)  # type: ignore[union-attr]
            found = attack(f, images[left], aim, threat, generator=own, batch_size=batch_size)
            broken = left[achieved(f, found, objective.take(left), batch_size)]
            stage[broken] = number
            if number == 1:
                made[left] = found
            made[stage == number] = found[stage[left] == number]
        return Broken(made, stage)
