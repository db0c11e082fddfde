"""What a check looks at: one subject on some of the audit's images, and the levels it is checked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from robustree.attacks import Attack, ImageNoise, Patch, Threat
from robustree.auditing.audit import Subject, image_noise
from robustree.auditing.checks.budget import Budget
from robustree.auditing.checks.check import Check, Status, found
from robustree.auditing.plan import Plan, Run, level_objective, target_label
from robustree.checkpoint import device_of
from robustree.data import AuditImages
from robustree.objectives import Loss, Margin, Readout, level_scores, targets
from robustree.taxonomy import Cut, Forest
from robustree.tree_model import Predictor, Scores

LISTED = 5
"""Images that a sentence names; the others are counted."""


@dataclass(frozen=True)
class Level:
    """A level as the plan reads it."""

    cut: Cut
    readout: Readout

    @property
    def label(self) -> str:
        return target_label(self.cut.label, self.readout)


def checked_levels(forest: Forest, plan: Plan, budget: Budget) -> tuple[Level, ...]:
    """The leaves and the coarsest level of the first tree, or all levels; those of one node cannot be attacked."""
    cuts = [cut for cut in forest.cuts() if len(cut.nodes) > 1]
    if not budget.every_level:
        above = [cut for cut in cuts for tree in forest.trees[:1] if cut.level and cut.tree == tree.name]
        cuts = [cut for cut in cuts if cut.level == 0] + above[-1:]
    readout = "direct" if "direct" in plan.readouts or not plan.readouts else plan.readouts[0]
    return tuple(Level(cut, readout if cut.level else "direct") for cut in cuts)


def confined(plan: Plan) -> bool:
    """Whether all attacks may change a part of the image only: what the whole threat allows says little about them."""
    return bool(plan.attacks) and all(is_patch(part.attack) for part in plan.attacks)


def is_patch(attack: object) -> bool:
    """Whether an attack, or the one inside it, changes a part of the image only."""
    inner = getattr(attack, "attack", None)
    return isinstance(attack, Patch) or (inner is not None and is_patch(inner))


def joined(predict: Predictor, images: Tensor, size: int) -> Scores:
    """The scores of images (B, ...) without gradients, `size` at a time."""
    with torch.no_grad():
        parts = [predict(part) for part in images.split(size)]
    return Scores(torch.cat([p.points for p in parts]), parts[0].prototypes, torch.cat([p.nodes for p in parts]))


@dataclass(frozen=True, eq=False)
class Case:
    """One subject on the budget's images; `pixels` and `leaves` are on the model's device."""

    subject: Subject
    images: AuditImages
    forest: Forest
    plan: Plan
    budget: Budget
    levels: tuple[Level, ...]

    @property
    def name(self) -> str:
        return f"{self.subject.name}/{self.subject.head}"

    def found(self, id: str, status: Status, figure: float | int | str | None, detail: str) -> Check:
        """What a check found out about this subject."""
        return found(id, self.name, status, figure, detail)

    @property
    def predict(self) -> Predictor:
        return self.subject.model

    @cached_property
    def device(self) -> torch.device:
        return device_of(self.subject.model)

    @cached_property
    def pixels(self) -> Tensor:
        return self.images.pixels[:].to(self.device)

    @cached_property
    def leaves(self) -> Tensor:
        return self.images.leaves.to(self.device)

    @cached_property
    def clean(self) -> Scores:
        return self.scores(self.pixels)

    @cached_property
    def every(self) -> Tensor:
        return torch.arange(len(self.leaves), device=self.device)

    def scores(self, images: Tensor, predict: Predictor | None = None) -> Scores:
        return joined(predict or self.predict, images, self.plan.batch_size)

    def decisions(self, scores: Scores, level: Level) -> Tensor:
        """(B,) the node of the level that the model chooses."""
        return level_scores(scores, level.cut, level.readout).argmax(1)

    def right(self, scores: Scores, level: Level, index: Tensor | None = None) -> Tensor:
        """(B,) whether the decision is the true node; `index`: which of the images these are."""
        leaves = self.leaves if index is None else self.leaves[index]
        return self.decisions(scores, level) == targets(level.cut, leaves)

    def margin(self, scores: Scores, level: Level, index: Tensor | None = None) -> Tensor:
        """(B,) the best wrong node's score less the true one's: positive where the decision is wrong."""
        leaves = self.leaves if index is None else self.leaves[index]
        return Margin(level.cut, leaves, readout=level.readout)(scores)

    def noise(self, key: str, level: Level, index: Tensor) -> ImageNoise:
        """Random numbers of the images at `index`; `key` names the attack, as in the audit."""
        ids = [self.images.ids[i] for i in index.tolist()]
        return image_noise(ids, self.plan.seed, Run(key, level.label, None), self.device)

    def attack(
        self,
        attack: Attack,
        level: Level,
        index: Tensor,
        *,
        key: str,
        loss: Loss | None = "margin",
        threat: Threat | None = None,
        predict: Predictor | None = None,
    ) -> Tensor:
        """Adversarial images (M, ...) for the images at `index` (M,)."""
        if len(index) == 0:
            return self.pixels[:0]
        objective = level_objective(self.forest, self.leaves[index], level.label, loss)
        return attack(
            predict or self.predict,
            self.pixels[index],
            objective,
            threat or self.plan.threat,
            generator=self.noise(key, level, index),
            batch_size=self.plan.batch_size,
        )

    def falls(self, images: Tensor, level: Level, index: Tensor) -> Tensor:
        """(M,) whether the model is wrong about images made from those at `index`; changes nothing for no images."""
        if len(index) == 0:
            return torch.zeros(0, dtype=torch.bool, device=self.device)
        return ~self.right(self.scores(images), level, index)

    def named(self, index: Tensor | Sequence[int]) -> str:
        """Some images by id."""
        positions = index.tolist() if isinstance(index, Tensor) else list(index)
        return listed([self.images.ids[i] for i in positions])


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def percent(count: float, n: int) -> str:
    return f"{100 * count / n:.1f} %" if n else "none"


def where(mask: Tensor) -> Tensor:
    """The positions of a mask."""
    return mask.nonzero()[:, 0]
