"""S21: an attack that is worth its name finds an adversarial class that is known to be there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustree.attacks import Attack, Search
from robustree.auditing.checks.case import Case, is_patch, percent, where
from robustree.auditing.checks.catalogue import PLANTED, PLANTED_FAIL
from robustree.auditing.checks.check import Check
from robustree.objectives import Loss
from robustree.tree_model import Scores

SHORTEST = 1e-6
"""Relative to the embedding: below, the planted image looks like the original."""


@dataclass(frozen=True, eq=False)
class Planted:
    """How far an image has come from its clean embedding towards that of a planted image, less `height`:
    <points - origin, target - origin> / |target - origin|^2 - height (after Zimmermann et al. 2022, "Increasing
    confidence in adversarial robustness evaluations").

    The planted image reaches 1 - height inside the threat. Two classes, so aiming changes nothing."""

    origin: Tensor
    way: Tensor
    height: float = PLANTED

    def __call__(self, scores: Scores) -> Tensor:
        return ((scores.points - self.origin) * self.way).sum(1) - self.height

    def lead(self, scores: Scores) -> Tensor:
        return self(scores)

    def take(self, index: Tensor) -> Planted:
        return replace(self, origin=self.origin[index], way=self.way[index])

    def rivals(self, scores: Scores, count: int) -> Tensor:
        return torch.zeros(len(self.origin), 1, dtype=torch.long, device=self.origin.device)

    def aimed(self, rivals: Tensor) -> Planted:
        return self

    def under(self, loss: Loss) -> Planted:
        return self


def plant(case: Case) -> tuple[Planted, Tensor]:
    """The objective for images (M,) whose embedding moves under noise at the threat's edge, and which those are."""
    level = case.levels[0]
    sign = case.noise("planted", level, case.every).uniform(0, case.pixels.shape[1:], case.pixels.dtype) - 0.5
    target = case.plan.threat.project(case.pixels + 1e6 * sign.sign(), case.pixels)
    origin, way = case.clean.points, case.scores(target).points - case.clean.points
    length = way.norm(dim=1)
    index = where(length > SHORTEST * origin.norm(dim=1))
    return Planted(origin[index], way[index] / length[index, None].square()), index


def planted(case: Case) -> Check:
    """S21: does each of the plan's attacks find the planted class?"""
    objective, index = plant(case)
    if len(index) == 0:
        return case.found(
            "S21",
            "flag",
            0,
            "noise at the threat's edge changes no embedding, so nothing can be planted: the model rounds its input.",
        )
    rows = []
    for part in (part for part in case.plan.attacks if not is_patch(part.attack)):
        made = _stopping(part.attack)(
            case.predict,
            case.pixels[index],
            objective,
            case.plan.threat,
            # Not the planted noise itself: a random start would begin at the target.
            generator=case.noise("planted search", case.levels[0], index),
            batch_size=case.plan.batch_size,
        )
        reached = (objective.lead(case.scores(made)) > 0) & case.plan.threat.contains(made, case.pixels[index])
        rows.append((int(reached.sum()), part.name, index[~reached]))
    count, name, missed = min(rows, key=lambda row: row[0])
    share = count / len(index)
    if len(missed) > 1:
        return case.found(
            "S21",
            "fail" if share < PLANTED_FAIL else "flag",
            share,
            f"{name} misses the planted class in {len(missed)} of {len(index)} images ({case.named(missed)}): it "
            "is too weak, or the gradients mislead it; add steps, and compare with Square.",
        )
    return case.found("S21", "pass", share, f"{name} finds the planted class in {percent(share, 1)} of the images.")


def _stopping(attack: Attack) -> Attack:
    """The attack, made to stop once the class is found, where it can."""
    return replace(attack, stop=True) if isinstance(attack, Search) else attack
