"""S8, S9, S13 and S14: whether the plan's attacks have found what they could."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from robustree.auditing.checks.attacked import Attacked, doubled, keeps_last
from robustree.auditing.checks.case import Case, percent, where
from robustree.auditing.checks.catalogue import MOVING, RESTARTS, SHARE_OF_IMAGES, STEPS, allowed
from robustree.auditing.checks.check import Check

LAST_STEPS = 10
"""At most so many of the steps are "the last steps", and at most a quarter of all."""


@dataclass(frozen=True)
class _Extra:
    """What a stronger attack breaks beyond the plan's."""

    label: str
    name: str
    images: Tensor
    survivors: int


def twice_the_steps(case: Case, levels: Sequence[Attacked]) -> Check:
    """S8: do more steps break more?"""
    extras = []
    for at in levels:
        longer = doubled(at.strongest.attack, whole=case.budget.cascades)
        if longer is not None:
            attack, loss = longer
            # The audit's own start: what falls now falls by the steps alone.
            made = case.attack(attack, at.level, at.survivors, key=at.strongest.attack.name, loss=loss)
            extras.append(_extra(at, attack.name, made))
    if not extras:
        return case.found("S8", "not applicable", None, "the plan's attacks have neither steps nor queries.")
    return _beyond("S8", case, extras, STEPS, "the plan's attacks have not converged: give them more steps")


def another_start(case: Case, levels: Sequence[Attacked]) -> Check:
    """S9: does another random start break more?"""
    extras = []
    for at in levels:
        part = at.strongest.attack
        made = case.attack(part.attack, at.level, at.survivors, key="another start", loss=part.loss)
        extras.append(_extra(at, f"{part.attack.name} started again", made))
    return _beyond("S9", case, extras, RESTARTS, "the result depends on the start: give the attacks restarts")


def _extra(at: Attacked, name: str, made: Tensor) -> _Extra:
    fallen = at.survivors[at.case.falls(made, at.level, at.survivors)]
    return _Extra(at.level.label, name, fallen, len(at.survivors))


def _beyond(id: str, case: Case, extras: Sequence[_Extra], share: float, advice: str) -> Check:
    most, n = max(extras, key=lambda extra: len(extra.images)), len(case.leaves)
    count = len(most.images)
    if count > allowed(share, n):
        return case.found(
            id,
            "flag",
            count / n,
            f"{most.name} breaks {count} of the {most.survivors} survivors at {most.label} "
            f"({case.named(most.images)}), {percent(count, n)} of the images: {advice}.",
        )
    return case.found(
        id, "pass", count / n, f"{most.name} breaks {count} of the {most.survivors} survivors at {most.label}."
    )


def best_returned(case: Case, levels: Sequence[Attacked]) -> Check:
    """S13: was an adversarial image met and not returned?"""
    silent, gap, unwatched, label = [], 0, 0, levels[0].level.label
    for at in levels:
        for made in at.made:
            met, last = made.watch.fallen()
            lost = where(at.right & met & ~made.falls)
            gap = max(gap, int((at.right & met & ~last).sum()))
            unwatched = max(unwatched, int((~made.watch.clear).sum()))
            if len(lost) > len(silent):
                silent, label = lost.tolist(), f"{at.level.label} under {made.attack.name}"
    set_so = [part.name for part in case.plan.attacks if keeps_last(part.attack)]
    if silent:
        return case.found(
            "S13",
            "fail",
            len(silent),
            f"{len(silent)} images ({case.named(silent)}) at {label} were broken on the way, but come back unbroken: "
            "the attack must return its best image, not its last one.",
        )
    if set_so:
        return case.found("S13", "fail", 0, f"{', '.join(set_so)} is set to return its last iterate: set best=True.")
    if unwatched == len(case.leaves):
        return case.found(
            "S13",
            "not applicable",
            None,
            "all images lie within 2 eps of another, so what the attacks looked at cannot be told apart.",
        )
    return case.found(
        "S13",
        "pass",
        0,
        f"every image that was broken on the way is returned broken; the last iterates alone would lose {gap}.",
    )


def still_moving(case: Case, levels: Sequence[Attacked]) -> Check:
    """S14: were the survivors' margins still rising when the attack ended?"""
    rows = []
    for at in levels:
        for made in at.made:
            traces = made.watch.traces
            watched = [i for i in where(at.right & ~made.falls).tolist() if len(traces[i]) > 2]
            starts = made.watch.clean
            moving = [i for i in watched if _late_gain(starts[i], traces[i]) > MOVING]
            rows.append((len(moving), len(watched), f"{at.level.label} under {made.attack.name}", moving))
    count, watched, label, moving = max(rows, key=lambda row: row[0])
    if count > allowed(SHARE_OF_IMAGES, watched):
        return case.found(
            "S14",
            "flag",
            count / watched,
            f"{count} of {watched} survivors at {label} ({case.named(moving)}) were still rising at the end: give the "
            "attack more steps or larger ones.",
        )
    return case.found("S14", "pass", count / max(1, watched), f"{count} of {watched} survivors still rose ({label}).")


def _late_gain(start: float, trace: Sequence[float]) -> float:
    """The share of the whole gain over the clean image's margin that the last steps brought."""
    late = min(LAST_STEPS, max(2, len(trace) // 4))
    before, end = max(trace[:-late]), max(trace)
    return (end - before) / (end - start) if end > start else 0.0
