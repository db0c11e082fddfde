"""What the plan's attacks, and the checks' own reference, do to the budget's images: made once, used by many checks."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from robustree.attacks import APGD, Attack, AutoAttack
from robustree.auditing.audit import attack_level, image_noise
from robustree.auditing.checks.case import Case, Level, where
from robustree.auditing.checks.watch import Watch
from robustree.auditing.plan import LevelAttack, Run
from robustree.objectives import Loss


@dataclass(frozen=True, eq=False)
class Made:
    """One of the plan's attacks at one level: its images (n, ...) as the audit makes them, the nodes that the model
    chooses for them, and what the attack saw."""

    attack: LevelAttack
    images: Tensor
    decisions: Tensor
    falls: Tensor
    watch: Watch


@dataclass(frozen=True, eq=False)
class Attacked:
    """A level under all of the plan's attacks on it."""

    case: Case
    level: Level
    right: Tensor
    made: tuple[Made, ...]

    @cached_property
    def standing(self) -> Tensor:
        """(n,) right on the clean image and under each of the plan's attacks on this level."""
        standing = self.right.clone()
        for made in self.made:
            standing &= ~made.falls
        return standing

    @cached_property
    def survivors(self) -> Tensor:
        return where(self.standing)

    @cached_property
    def strongest(self) -> Made:
        """The attack that leaves the fewest right images standing."""
        return max(self.made, key=lambda made: int((self.right & made.falls).sum()))

    @cached_property
    def reference(self) -> Tensor:
        """(n,) right and standing under Auto-PGD on the margin, the checks' own attack."""
        return self.reference_at(1.0)

    def reference_at(self, factor: float) -> Tensor:
        """(n,) who stands against the reference at a multiple of eps (no more than the whole box)."""
        case, index = self.case, where(self.right)
        threat = case.plan.threat
        eps = factor * threat.eps
        if threat.norm == "linf":
            eps = min(eps, threat.high - threat.low)
        attack = APGD(steps=case.budget.steps, stop=True)
        made = case.attack(attack, self.level, index, key="reference", threat=replace(threat, eps=eps))
        standing = self.right.clone()
        standing[index] = ~case.falls(made, self.level, index)
        return standing


def attacked(case: Case, level: Level) -> Attacked:
    """Run the plan's attacks again, with the audit's own random numbers, and watch them."""
    plan, made = case.plan, []
    for attack in plan.attacks:
        run, watch = Run(attack.name, level.label, attack), Watch(case, level)
        noise = image_noise(case.images.ids, plan.seed, run, case.device)
        images, _ = attack_level(watch, case.pixels, case.leaves, case.forest, plan, run, noise)  # type: ignore[arg-type]
        scores = case.scores(images)
        made.append(Made(attack, images, case.decisions(scores, level), ~case.right(scores, level), watch))
    return Attacked(case, level, case.right(case.clean, level), tuple(made))


def doubled(part: LevelAttack, *, whole: bool) -> tuple[Attack, Loss | None] | None:
    """An attack with twice the steps (or queries), every run to its end or to success; of a cascade its first stage,
    unless `whole`.

    None for an attack that has neither."""
    attack: Any = part.attack
    if isinstance(attack, AutoAttack):
        if whole:
            return replace(attack, steps=2 * attack.steps, queries=2 * attack.queries, optimism=None), None
        first = attack.stages[0]
        attack, loss = first.attack, first.loss
    else:
        loss = part.loss
    longer = _longer(attack)
    return None if longer is None else (longer, loss)


def _longer(attack: Any) -> Any:
    if not is_dataclass(attack):
        return None
    names = {field.name for field in fields(attack)}
    for name in ("steps", "queries"):
        if name in names:
            ends = {"stop": True} if "stop" in names and not keeps_last(attack) else {}
            ends |= {"optimism": None} if "optimism" in names else {}
            return replace(attack, **{name: 2 * getattr(attack, name)}, **ends)  # type: ignore[type-var]
    if "attack" in names:
        inner = _longer(attack.attack)  # type: ignore[attr-defined]
        return None if inner is None else replace(attack, attack=inner)  # type: ignore[type-var]
    return None


def keeps_last(attack: Any) -> bool:
    """Whether an attack, or one inside it, is set to return its last iterate."""
    inner = getattr(attack, "attack", None)
    return getattr(attack, "best", True) is False or (inner is not None and keeps_last(inner))
