"""S6, S7 and S10: whether attacks grow stronger with their bound and with their effort."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from robustree.attacks import PGD, Threat
from robustree.auditing.checks.attacked import Attacked
from robustree.auditing.checks.case import Case, percent, where
from robustree.auditing.checks.catalogue import AIMED, ORDER, UNBOUNDED, allowed
from robustree.auditing.checks.check import Check
from robustree.objectives import Margin

AIMED_IMAGES = 16


def unbounded(case: Case, levels: Sequence[Attacked]) -> Check:
    """S6: does an attack that may do anything break everything?"""
    threat = case.plan.threat
    whole = threat.high - threat.low
    limitless = replace(threat, eps=whole if threat.norm == "linf" else whole * math.sqrt(case.pixels[0].numel()))
    attack = PGD(steps=case.budget.steps, stop=True)
    left: list[tuple[float, str, Tensor]] = []
    for at in levels:
        index = where(at.right)
        made = case.attack(attack, at.level, index, key="unbounded", threat=limitless)
        standing = index[~case.falls(made, at.level, index)]
        left.append((len(standing) / len(index) if len(index) else 0.0, at.level.label, standing))
    share, label, standing = max(left, key=lambda entry: entry[0])
    if share > UNBOUNDED and len(standing) > 1:
        return case.found(
            "S6",
            "fail",
            share,
            f"at {label}, {len(standing)} right images ({case.named(standing)}) stand against {attack.name} without a "
            "bound: its gradients lead nowhere, so lower robust accuracies hide behind these; see S5 and S16.",
        )
    tried, reached = _aimed(case, levels[-1], attack, limitless)
    if tried and reached / tried < AIMED:
        return case.found(
            "S6",
            "flag",
            reached / tried,
            f"without a bound {reached} of {tried} images reach the node of {levels[-1].level.label} that the attack "
            "aims at: aimed attacks are weak on this model, or it hardly ever chooses that node.",
        )
    return case.found(
        "S6",
        "pass",
        share,
        f"without a bound at most {percent(share, 1)} of the right images stand, and {reached} of {tried} reach the "
        f"node aimed at ({levels[-1].level.label}).",
    )


def _aimed(case: Case, at: Attacked, attack: PGD, limitless: Threat) -> tuple[int, int]:
    """How many images were aimed at some nodes of the level, and how many were read as those."""
    cut, tried, reached = at.level.cut, 0, 0
    of_leaf = torch.tensor(cut.of_leaf, device=case.device)[case.leaves]
    for node in range(min(case.budget.aims, len(cut.nodes))):
        index = where(of_leaf != node)[:AIMED_IMAGES]
        if len(index) == 0:
            continue
        objective = Margin(cut, case.leaves[index], readout=at.level.readout, towards=node)
        made = attack(
            case.predict,
            case.pixels[index],
            objective,
            limitless,
            generator=case.noise(f"aimed/{node}", at.level, index),
            batch_size=case.plan.batch_size,
        )
        tried += len(index)
        reached += int((case.decisions(case.scores(made), at.level) == node).sum())
    return tried, reached


def larger_eps(case: Case, levels: Sequence[Attacked]) -> Check:
    """S7: does everything that falls at a smaller eps fall at a larger one?"""
    n, rows = len(case.leaves), []
    for at in levels:
        standing = [at.reference_at(0.5), at.reference, at.reference_at(2.0)]
        back = (~standing[0] & standing[1]) | (~standing[0] & standing[2]) | (~standing[1] & standing[2])
        rows.append((int(back.sum()), at.level.label, [int(mask.sum()) for mask in standing], back))
    risen = [row for row in rows if row[2][2] > row[2][0] + allowed(ORDER, n)]
    count, label, curve, back = max(rows, key=lambda row: row[0])
    shown = f"{curve[0]}, {curve[1]}, {curve[2]} of {n} images stand at eps / 2, eps, 2 eps ({label})"
    if risen:
        _, label, curve, _ = risen[0]
        return case.found(
            "S7",
            "fail",
            curve[2] - curve[0],
            f"at {label}, {curve[0]} images stand at eps / 2 and {curve[2]} at 2 eps: a larger ball holds the smaller "
            "one, so the attack fails; see S5, S15 and S16.",
        )
    if count > allowed(ORDER, n):
        return case.found(
            "S7",
            "flag",
            count,
            f"{count} images ({case.named(where(back))}) fall at a smaller eps and stand at a larger one; {shown}: "
            "give the attacks more steps or restarts.",
        )
    return case.found("S7", "pass", count, f"{shown}, {count} of them out of order.")


def order(case: Case, levels: Sequence[Attacked]) -> Check:
    """S10: one step, many steps, adaptive steps: in this order of strength?"""
    n, slack, worst = len(case.leaves), allowed(ORDER, len(case.leaves)), None
    shown = []
    for at in levels:
        index = where(at.right)
        fallen = []
        one = PGD(steps=1, step_size=1.0, random_start=False, stop=True)
        for attack in (one, PGD(steps=case.budget.steps, stop=True)):
            made = case.attack(attack, at.level, index, key="order")
            fallen.append(int(case.falls(made, at.level, index).sum()))
        single, many = fallen
        adaptive, plan = int((at.right & ~at.reference).sum()), int((at.right & ~at.standing).sum())
        shown.append(f"{single}, {many}, {adaptive} at {at.level.label}")
        if at.made and single > plan + slack:
            return case.found(
                "S10",
                "fail",
                single - plan,
                f"at {at.level.label} a single step breaks {single} of {n} images and the plan's attacks {plan}: they "
                "are misconfigured; look at step size and steps.",
            )
        if single > many + slack or many > adaptive + slack:
            worst = worst or (at.level.label, single, many, adaptive)
    if worst:
        label, single, many, adaptive = worst
        return case.found(
            "S10",
            "flag",
            max(single - many, many - adaptive),
            f"at {label} one step breaks {single} of {n} images, PGD {many} and Auto-PGD {adaptive}: a stronger attack "
            "does worse, so the loss is rough or the gradients are wrong; see S15 and S16.",
        )
    return case.found("S10", "pass", 0, f"one step, PGD and Auto-PGD break {'; '.join(shown)}, of {n} images.")
