"""An attack that can be watched: one step at a time, the strongest image so far after each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from zlib import crc32

import torch
from torch import Tensor

from robustree.attacks import PGD, ImageNoise, Threat
from robustree.auditing.audit import Subject
from robustree.checkpoint import device_of
from robustree.demo.bench import Sample
from robustree.demo.decisions import Decisions, truth_of
from robustree.goals import Goal
from robustree.taxonomy import Cut, Forest
from robustree.tree_model import Scores

MOST_STEPS = 100
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a visitor wants done: at which level ("leaf", "unicode/1" or "all"), away from the right answer or
    `towards` a node of that level (or, at the leaf, of any level: all leaves below it).

    Raises:
        ValueError: eps, steps or level cannot be used.
    """

    forest: Forest
    level: str
    eps: float
    steps: int
    towards: int | None = None

    def __post_init__(self) -> None:
        Threat(eps=self.eps)
        if not 1 <= self.steps <= MOST_STEPS:
            raise ValueError(f"the attack has {self.steps} steps; it may have 1 to {MOST_STEPS}.")
        if self.level == ALL and self.towards is not None:
            raise ValueError("an attack at all levels at once is aimed at none: choose one level to aim.")
        _ = self.cuts, self.target  # both refuse what is not there

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The attacked levels."""
        return self.forest.cuts() if self.level == ALL else (self.forest.find_cut(self.level),)

    @property
    def target(self) -> int | tuple[int, ...] | None:
        """The aim as indices into the attacked level."""
        if self.towards is None:
            return None
        (cut,) = self.cuts
        if self.towards in cut.nodes:
            return cut.nodes.index(self.towards)
        trees = [tree for tree in self.forest.trees if self.towards in tree.nodes]
        if cut.level or not trees:
            raise ValueError(f"level {cut.label} has no node {self.towards}: aim at one of its own.")
        return tuple(sorted(trees[0].leaves_below(self.towards)))

    def goal(self, sample: Sample, clean: Decisions, device: torch.device) -> Goal:
        """What the attack changes: decisions away from the truth or, for an image without one, from `clean`."""
        truth = {label: found.node for label, found in clean.items()}
        if sample.leaf is not None:
            truth = truth_of(self.forest, sample.leaf)
        indices = {cut.label: torch.tensor([cut.nodes.index(truth[cut.label])], device=device) for cut in self.cuts}
        return Goal(self.cuts, indices, self.target)


@dataclass(frozen=True, kw_only=True)
class Look:
    """The strongest image (3, H, W) after `step` steps (0: the random start), found at step `found`.

    `achieved`: its decision is what the attacker wants; `first`: the step at which that was first met; `value`: the
    objective; `scores`: what the model says of it.
    """

    step: int
    found: int
    first: int | None
    image: Tensor
    value: float
    achieved: bool
    scores: Scores


def watch(subject: Subject, sample: Sample, clean: Decisions, wish: Wish) -> Iterator[Look]:
    """The looks 0..steps of PGD on the margin (or the mean cross-entropy of all levels); the last one holds what
    `PGD(steps=wish.steps)` returns."""
    device = device_of(subject.model)
    goal, threat = wish.goal(sample, clean, device), Threat(eps=wish.eps)
    objective = goal.objective("margin" if len(goal.cuts) == 1 else None)
    noise = noise_of(sample.name, device)
    image = sample.pixels[None].to(device)
    one_step = PGD(steps=1, best=False)
    x = threat.random_start(image, noise, 0)
    strongest: Look | None = None
    for step in range(wish.steps + 1):
        if step:
            x = one_step(subject.model, image, objective, threat, generator=noise, starts=x)
        with torch.no_grad():
            scores: Scores = subject.model(x)
            value, achieved = float(objective(scores)), bool(objective.lead(scores) > 0)
        first = step if strongest is None or strongest.first is None else strongest.first
        if strongest is None or (achieved, value) > (strongest.achieved, strongest.value):
            strongest = Look(
                step=step,
                found=step,
                first=first if achieved else None,
                image=x[0],
                value=value,
                achieved=achieved,
                scores=scores,
            )
        strongest = replace(strongest, step=step)
        yield strongest


def noise_of(name: str, device: torch.device) -> ImageNoise:
    """The random numbers of an image of that name, always the same."""
    return ImageNoise(torch.tensor([crc32(name.encode())], device=device))


def aims(forest: Forest, tree: str, level: str, truth: Mapping[str, int] | None) -> list[tuple[str, int]]:
    """The nodes that an attack on a level can be aimed at, as (name, node): its own but the right one and, at the leaf,
    the superclasses of the tree that the image is not in."""
    if level == ALL:
        return []
    cut, found = forest.find_cut(level), []
    if cut.level == 0:
        for upper in range(forest.tree(tree).depth, 0, -1):
            above = forest.cut(tree, upper)
            fresh = [node for node in above.nodes if node >= forest.leaf_count and node not in {n for _, n in found}]
            found += [(f"any {forest.names[node]}", node) for node in fresh if _other(truth, above, node)]
    return found + [(forest.names[node], node) for node in cut.nodes if _other(truth, cut, node)]


def _other(truth: Mapping[str, int] | None, cut: Cut, node: int) -> bool:
    return truth is None or truth[cut.label] != node
