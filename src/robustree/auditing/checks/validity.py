"""S18: whether every image that an attack claims is one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from robustree.auditing.checks.attacked import Attacked
from robustree.auditing.checks.case import Case, listed, percent, where
from robustree.auditing.checks.catalogue import CLEAN_REMADE, JUDGED, REMADE, allowed
from robustree.auditing.checks.check import Check
from robustree.auditing.checks.rows import Rows
from robustree.auditing.table import Subject
from robustree.objectives import level_scores
from robustree.taxonomy import Cut


def validity(case: Case, levels: Sequence[Attacked], rows: Rows | None) -> Check:
    """S18: are adversarial images inside the threat, and are their decisions what the rows say?"""
    threat, outside, unsure, judged, differing, compared = case.plan.threat, [], 0, 0, 0, 0
    rounded = fallen = 0
    for at in levels:
        for made in at.made:
            bad = ~threat.contains(made.images, case.pixels) | ~made.images.flatten(1).isfinite().all(1)
            outside += [f"{case.images.ids[i]} under {made.attack.name}" for i in where(bad).tolist()]
            single = torch.cat([case.decisions(case.scores(made.images[i : i + 1]), at.level) for i in range(len(bad))])
            unsure += int((single != made.decisions).sum())
            judged += len(single)
            broken = where(at.right & made.falls)
            fallen += len(broken)
            rounded += int(case.falls((made.images[broken] * 255).round() / 255, at.level, broken).sum())
            if rows is not None:
                own = _recorded(rows, case, (made.attack.name, at.level.label), at.level.cut, at.level.readout)
                compared += len(own)
                decisions = made.decisions.tolist()
                differing += sum(decisions[i] != node for i, node in own.items())
    if rows is not None:
        outside += [image for run in _subject(rows, case).runs for image in run.invalid]
    if outside:
        return case.found(
            "S18",
            "fail",
            len(outside),
            f"{len(outside)} adversarial images ({listed(outside)}) leave the threat or are not finite: they count as "
            "not broken, so repair the attack.",
        )
    clean = _clean_difference(rows, case) if rows is not None else 0.0
    if clean > CLEAN_REMADE:
        return case.found(
            "S18",
            "fail",
            clean,
            f"{percent(clean, 1)} of the clean decisions are not those in the rows: the rows belong to other weights, "
            "other texts or other images, or the model is random (S3).",
        )
    if unsure > allowed(JUDGED, judged) or differing > allowed(REMADE, compared):
        return case.found(
            "S18",
            "flag",
            unsure,
            f"{unsure} of {judged} decisions about adversarial images change when they are shown one at a time, and "
            f"{differing} of {compared} differ from the rows: the model depends on the batch or is random (S3).",
        )
    kept = f"; {rounded} of {fallen} broken images stay broken as 8-bit files" if fallen else ""
    return case.found(
        "S18",
        "pass",
        unsure,
        f"{judged} adversarial images are inside the threat, {unsure} decisions depend on the batch size, "
        f"{differing} of {compared} differ from the rows{kept}.",
    )


def _subject(rows: Rows, case: Case) -> Subject:
    return rows.table.subject(case.subject.name, case.subject.head)


def _recorded(rows: Rows, case: Case, name: tuple[str, str], cut: Cut, readout: str) -> dict[int, int]:
    """Position -> the decision in the rows of a run; empty if they have no such run."""
    subject, column = _subject(rows, case), rows.table.cuts.index(cut)
    runs = [run for run in (subject.clean, *subject.runs) if (run.attack, run.attacked) == name]
    row_of = rows.table.row_of
    return {
        i: int(run.predicted[readout][row_of[image], column])
        for run in runs
        for i, image in enumerate(case.images.ids)
        if image in row_of
    }


def _clean_difference(rows: Rows, case: Case) -> float:
    """The share of clean decisions, at all levels, that are not those in the rows."""
    differing = compared = 0
    for cut in case.forest.cuts():
        own = level_scores(case.clean, cut, "direct").argmax(1)
        recorded = _recorded(rows, case, ("clean", ""), cut, "direct")
        differing += sum(int(own[i]) != node for i, node in recorded.items())
        compared += len(recorded)
    return differing / max(1, compared)
