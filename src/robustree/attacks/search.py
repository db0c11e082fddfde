"""The loop that every iterative attack shares; an attack itself is only a rule for where to look next.

The loop evaluates the model, keeps the best image seen, lets decided images leave the batch and fills their places
from the queue, across restarts and targets. No result depends on the batch size, as far as the model's own rounding
does not: random numbers belong to images (`noise`), and an image's rule sees nothing of its neighbours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustree.attacks.contract import Objective
from robustree.attacks.foresight import Foresight
from robustree.attacks.noise import ImageNoise
from robustree.attacks.threat import Threat

State = dict[str, Tensor]
"""What a rule remembers of each image: tensors (B, ...), among them `x`, the next point to evaluate, and `centre`."""
HOST_LOOKS = 8
"""On an accelerator, how many steps pass between two looks at who is decided: each look waits for the device."""


@dataclass(frozen=True, kw_only=True)
class Search(ABC):
    """An iterative attack: `begin` says where to look first, `advance` where next.

    `restarts`: how often each image is tried. `targets` > 0: the objective is aimed at that many wrong classes in turn
    (fewer where there are fewer), most likely first. `best`: return for each image an iterate that achieves the
    objective if one was met, among those (or among all) the one with the highest objective; otherwise the last
    iterate. `stop`: an image leaves at the first iterate that achieves the objective, and one that achieves it
    already is returned as it is: the same decisions at a fraction of the forwards. `optimism`: an image also leaves a
    run that can no longer succeed, going by how fast it came closer (`Foresight`): a robust model is attacked in a
    third of the time, and images that would fall late may stand; None, and every run goes to its end."""

    restarts: int = 1
    targets: int = 0
    best: bool = True
    stop: bool = False
    optimism: float | None = None

    gradients: ClassVar[bool] = True
    """Whether `advance` reads gradients; without, the model is only queried."""
    strays: ClassVar[bool] = False
    """Whether iterates may leave the threat; those that do are not kept."""
    startable: ClassVar[bool] = True
    """Whether the first point of a run may be any point of the threat (`starts`)."""

    def __post_init__(self) -> None:
        if self.restarts < 1 or self.targets < 0:
            raise ValueError(
                f"{type(self).__name__} has restarts {self.restarts} and targets {self.targets}: restarts start at 1 "
                "and targets at 0 (no aiming)."
            )
        if self.stop and not self.best:
            raise ValueError(
                f"{type(self).__name__} has stop without best; stopping early returns the best iterate: set best=True."
            )
        if self.optimism is not None and (self.strays or not self.stop or not self.optimism > 0):
            raise ValueError(
                f"{type(self).__name__} has optimism {self.optimism} and stop {self.stop}; optimism is above 0, asks "
                "for stop=True, and is not for attacks that leave the threat on the way: change that or leave it out."
            )
        if self.strays and not self.best:
            raise ValueError(
                f"{type(self).__name__} has best=False; its last iterate may lie outside the threat: set best=True."
            )

    @property
    @abstractmethod
    def name(self) -> str:
        """What reports call the attack."""

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """How many points a run looks at, at most."""

    @abstractmethod
    def begin(self, images: Tensor, threat: Threat, noise: ImageNoise, run: Tensor) -> State:
        """The first state of each image; its `run` (B,) is restart * max(1, targets) + target, both from 0."""

    @abstractmethod
    def advance(self, state: State, values: Tensor, gradient: Tensor, achieved: Tensor, threat: Threat) -> State:
        """The next state, given the objective (B,), its gradient (B, ...) and whether it is achieved at `state["x"]`.

        `gradient` is a single zero for rules without `gradients`; what follows a run's last point is not looked at."""

    def __call__(
        self,
        f: Callable[[Tensor], Any],
        images: Tensor,
        objective: Any,
        threat: Threat,
        *,
        generator: torch.Generator | ImageNoise,
        batch_size: int | None = None,
        starts: Tensor | None = None,
    ) -> Tensor:
        """Adversarial images (B, ...) inside the threat; `starts` (B, ...) replaces the first run's beginning.

        Raises:
            ValueError: `targets` > 0 and the objective has no rivals to aim at, `batch_size` is below 1, or `starts`
                leave the threat or are given to an attack that chooses its own.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it starts at 1.")
        images = images.detach()
        if starts is not None:
            self._check(starts, images, threat)
        noise = generator
        if isinstance(generator, torch.Generator):
            noise = ImageNoise.drawn(generator, len(images), images.device)
        kept = _Kept(images, freeze=self.stop)
        size = batch_size or max(1, len(images))
        goal, runs = _Goal(objective), self.restarts
        if self.targets and not hasattr(objective, "rivals"):
            raise ValueError(
                f"{self.name} aims at wrong classes, and {type(objective).__name__} is about none: set targets=0."
            )
        if self.stop or self.targets:
            rivals = [
                self._look(f, images[index], objective.take(index), index, kept)
                for index in torch.arange(len(images), device=images.device).split(size)
            ]
            if self.targets:
                goal = _Goal(objective, torch.cat(rivals)) if rivals else goal
                runs *= goal.count
        _Loop(self, f, images, threat, noise, starts, goal, runs, size, kept).go()  # type: ignore[arg-type]
        return kept.images

    def _check(self, starts: Tensor, images: Tensor, threat: Threat) -> None:
        if not self.startable:
            raise ValueError(f"{self.name} was given starts; it chooses its own points: leave them out.")
        if starts.shape != images.shape or not bool(threat.contains(starts, images).all()):
            raise ValueError(
                f"the starts (shape {tuple(starts.shape)}) are no points of the threat around images of shape "
                f"{tuple(images.shape)}: project them first."
            )

    @torch.no_grad()
    def _look(self, f: Callable[[Tensor], Any], images: Tensor, objective: Any, index: Tensor, kept: _Kept) -> Tensor:
        """Look at the clean images: keep those that need no attack, and find the classes to aim at."""
        output = f(images)
        if self.stop:
            kept.update(index, images, objective(output), objective.lead(output) > 0)
        if not self.targets:
            return index
        rivals = objective.rivals(output, self.targets)
        if rivals.shape[1] == 0:
            raise ValueError(
                f"{self.name} aims at wrong classes, and the level under attack has none: leave out levels of one node."
            )
        return rivals


@dataclass(frozen=True)
class _Goal:
    """The objective of every run: the given one, or aimed at the run's rival."""

    objective: Any
    rivals: Tensor | None = None

    @property
    def count(self) -> int:
        return 1 if self.rivals is None else self.rivals.shape[1]

    def of(self, index: Tensor, run: Tensor) -> Objective:
        mine = self.objective.take(index)
        return mine if self.rivals is None else mine.aimed(self.rivals[index, run % self.count])


class _Kept:
    """The best image found so far for each image, its objective and whether it is achieved."""

    def __init__(self, images: Tensor, *, freeze: bool) -> None:
        self.images = images.clone()
        self.values = torch.full((len(images),), -torch.inf, device=images.device, dtype=images.dtype)
        self.achieved = torch.zeros(len(images), device=images.device, dtype=torch.bool)
        self.freeze = freeze

    def update(self, index: Tensor, x: Tensor, values: Tensor, achieved: Tensor) -> None:
        held, values = self.achieved[index], values.to(self.values.dtype)
        rises = (achieved & ~held) | ((achieved == held) & (values > self.values[index]))
        if self.freeze:
            rises = rises & ~held
        self.values[index] = torch.where(rises, values, self.values[index])
        if x.device.type == "cpu":  # mostly few images rise, and asking which costs nothing here
            rose = rises.nonzero()[:, 0]
            self.images[index[rose]] = x[rose]
        else:
            wide = rises.view(-1, *[1] * (x.ndim - 1))
            self.images[index] = torch.where(wide, x, self.images[index])
        self.achieved[index] = held | achieved


class _Loop:
    """One attack's passage over all images: places in the batch, and a queue of (image, run) for them."""

    def __init__(
        self,
        rule: Search,
        f: Callable[[Tensor], Any],
        images: Tensor,
        threat: Threat,
        noise: ImageNoise,
        starts: Tensor | None,
        goal: _Goal,
        runs: int,
        size: int,
        kept: _Kept,
    ) -> None:
        self.rule, self.f, self.images, self.threat, self.noise = rule, f, images, threat, noise
        self.starts, self.goal, self.runs, self.size, self.kept = starts, goal, runs, size, kept
        standing = (~kept.achieved).nonzero()[:, 0].tolist() if rule.stop else range(len(images))
        self.queue = deque((image, 0) for image in standing)
        self.places: list[tuple[int, int, int]] = []  # (image, run, points looked at)
        self.state: State = {}
        self.foresight = Foresight(rule.evaluations, rule.optimism, images.device)

    def go(self) -> None:
        while self.queue or self.places:
            self._fill()
            for _ in self._undisturbed():
                self._step()
            self._leave()

    def _fill(self) -> None:
        fresh = [self.queue.popleft() for _ in range(min(self.size - len(self.places), len(self.queue)))]
        if fresh:
            index, run = torch.tensor(fresh, device=self.images.device).unbind(1)
            # A level may have fewer classes than targets: a run's number still says which restart it is.
            restart, target = run // self.goal.count, run % self.goal.count
            numbered = restart * max(1, self.rule.targets) + target
            with torch.no_grad():
                state = self.rule.begin(self.images[index], self.threat, self.noise.take(index), numbered)
                if self.starts is not None:
                    first = (run == 0).view(-1, *[1] * (self.images.ndim - 1))
                    state["x"] = torch.where(first, self.starts[index], state["x"])
            self.state = {k: torch.cat([self.state[k], v]) if self.places else v for k, v in state.items()}
            self.places += [(image, run, 0) for image, run in fresh]
            self.foresight.enter(len(fresh))
            self._seat()

    def _seat(self) -> None:
        index, run = torch.tensor([place[:2] for place in self.places], device=self.images.device).unbind(1)
        self.index, self.objective = index, self.goal.of(index, run)

    def _undisturbed(self) -> Iterator[int]:
        """The steps until somebody may leave."""
        until_end = self.rule.evaluations - max(looked for _, _, looked in self.places)
        return iter(range(min(until_end, 1 if self.images.device.type == "cpu" else HOST_LOOKS)))

    def _step(self) -> None:
        x = self.state["x"].detach()  # it may be the same tensor as `centre`, which needs no gradient
        last = self.rule.best and all(looked == self.rule.evaluations - 1 for _, _, looked in self.places)
        needed = self.rule.gradients and not last
        with torch.set_grad_enabled(needed):
            output = self.f(x.requires_grad_(needed))
            values = self.objective(output)
            gradient = torch.autograd.grad(values.sum(), x)[0] if needed else torch.zeros((), device=x.device)
        with torch.no_grad():
            x, values = x.detach(), values.detach()
            lead = self.objective.lead(output)
            achieved = lead > 0
            if self.rule.best:
                # A hopeless run has ended, though its image stays in the batch until somebody looks.
                counts = ~self.foresight.hopeless
                if self.rule.strays:
                    counts = counts & self.threat.contains(x, self.state["centre"])
                self.kept.update(self.index, x, values.where(counts, -torch.inf), achieved & counts)
            if not last:
                self.state["x"] = x
                self.state = self.rule.advance(self.state, values, gradient, achieved, self.threat)
        self.places = [(image, run, looked + 1) for image, run, looked in self.places]
        self.foresight.look(lead, [looked for _, _, looked in self.places])

    def _leave(self) -> None:
        ended = [looked >= self.rule.evaluations for _, _, looked in self.places]
        decided = self.kept.achieved[self.index].tolist() if self.rule.stop else [False] * len(ended)
        early = self.state["done"] | self.foresight.hopeless if "done" in self.state else self.foresight.hopeless
        ended = [a or b for a, b in zip(ended, early.tolist(), strict=True)]
        gone = [a or b for a, b in zip(ended, decided, strict=True)]
        if not any(gone):
            return
        if not self.rule.best:
            out = torch.tensor(gone, device=self.images.device).nonzero()[:, 0]
            self.kept.images[self.index[out]] = self.state["x"][out]
        for (image, run, _), out, done in zip(self.places, gone, decided, strict=True):
            if out and not done and run + 1 < self.runs:
                self.queue.append((image, run + 1))
        self.places = [place for place, out in zip(self.places, gone, strict=True) if not out]
        stay = torch.tensor([not out for out in gone], device=self.images.device).nonzero()[:, 0]
        self.state = {k: v[stay] for k, v in self.state.items()} if self.places else {}
        self.foresight.stay(stay)
        if self.places:
            self._seat()
