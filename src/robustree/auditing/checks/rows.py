"""The audit's rows, counted again; S19 and S25."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustree.auditing.checks.case import listed, percent
from robustree.auditing.checks.catalogue import HALF_WIDTH
from robustree.auditing.checks.check import Check, found
from robustree.auditing.metrics import table_figures
from robustree.auditing.plan import Plan
from robustree.auditing.rows import read_rows
from robustree.auditing.statistics import wilson
from robustree.auditing.table import Table, read_table
from robustree.data import AuditImages
from robustree.taxonomy import Forest

Robust = dict[tuple[str, str, str], tuple[int, int | None, int]]
"""(model, head, level) -> how many images are right, robust under the attacks on that level (None without), and all."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of an audit as its table, and what a count that does not know the table finds in the same file."""

    table: Table
    counts: Robust
    length: int


def rows_of(directory: Path, forest: Forest) -> Rows:
    """Read an audit's rows twice: once for the table, and once to count.

    Raises:
        ValueError: `read_rows` or `read_table` refuses them.
    """
    table = read_table(read_rows(directory), forest)
    runs = sum(1 + len(subject.runs) for subject in table.subjects)
    return Rows(table, counted(read_rows(directory), table.images, forest), runs * len(table.images))


def counted(rows: Iterable[Mapping[str, Any]], images: Sequence[str], forest: Forest) -> Robust:
    """Count the images that are right when clean, and those that no attack on the same level breaks, row by row.

    An adversarial image that left the threat breaks nothing.
    """
    place = {image: number for number, image in enumerate(images)}
    cuts = {cut.label: cut for cut in forest.cuts()}
    right: dict[tuple[str, str, str], bytearray] = defaultdict(lambda: bytearray(len(images)))
    broken: dict[tuple[str, str, str], bytearray] = defaultdict(lambda: bytearray(len(images)))
    for row in rows:
        subject, image = (row["model"], row["head"]), place[row["image"]]
        if row["attack"] == "clean":
            for label, cut in cuts.items():
                right[*subject, label][image] = row["direct"][label] == cut.of_leaf[row["leaf"]]
        elif row["attacked"] in cuts:
            label = row["attacked"]
            fallen = row["direct"][label] != cuts[label].of_leaf[row["leaf"]]
            broken[*subject, label][image] |= row["valid"] and fallen
    counts: Robust = {}
    for key, marks in right.items():
        lost = broken.get(key)
        robust = None if lost is None else sum(ok and not gone for ok, gone in zip(marks, lost, strict=True))
        counts[key] = sum(marks), robust, len(images)
    return counts


def counting(rows: Rows, images: AuditImages, plan: Plan, subjects: Sequence[tuple[str, str]]) -> Check:
    """S19: is every row there, and does a second count agree with the audit's figures?"""
    runs = [(run.name, run.attacked) for run in plan.runs(rows.table.forest)]
    there = {
        (subject.model, subject.head): {(run.attack, run.attacked) for run in (subject.clean, *subject.runs)}
        for subject in rows.table.subjects
    }
    missing = [
        f"{image} of {model}/{head} under {attack} {attacked}".rstrip()
        for model, head in subjects
        for attack, attacked in runs
        for image in images.ids
        if image not in rows.table.row_of or (attack, attacked) not in there.get((model, head), ())
    ]
    if missing:
        return found(
            "S19", "", "fail", len(missing), f"{len(missing)} rows are missing ({listed(missing)}): finish the audit."
        )
    wrong = []
    for model in table_figures(rows.table, resamples=100)["models"]:
        for level in model["cuts"]:
            clean, robust, total = rows.counts[model["model"], model["head"], level["cut"]]
            direct = level["readouts"]["direct"]
            aimed = direct["aimed_worst"]
            if (direct["clean"]["count"], direct["clean"]["n"]) != (clean, total) or (
                (aimed["count"] if aimed else None) != robust
            ):
                wrong.append(f"{model['model']}/{model['head']} at {level['cut']}")
    if wrong:
        return found(
            "S19", "", "fail", len(wrong), f"a second count differs for {listed(wrong)}: report this as a defect."
        )
    return found(
        "S19", "", "pass", 0, f"{rows.length} rows, {len(rows.counts)} robust accuracies counted twice, all equal."
    )


def statistics(rows: Rows, images: AuditImages) -> Check:
    """S25: the same images for every model, and enough of them?"""
    if set(rows.table.images) != set(images.ids):
        return found(
            "S25",
            "",
            "fail",
            len(rows.table.images),
            f"the rows are of {len(rows.table.images)} images, which are not the audit's {len(images.ids)}: models can "
            "only be compared on the same ones.",
        )
    widest, told = 0.0, "no level was attacked"
    for (model, head, label), (clean, robust, n) in rows.counts.items():
        count = clean if robust is None else robust
        low, high = wilson(count, n)
        if (high - low) / 2 > widest:
            widest = (high - low) / 2
            told = (
                f"{model}/{head} at {label}: {percent(count, n)}, 95 % interval {percent(low, 1)} to {percent(high, 1)}"
            )
    if widest > HALF_WIDTH:
        return found(
            "S25",
            "",
            "flag",
            widest,
            f"{len(images.ids)} images leave ±{100 * widest:.0f} points ({told}): audit more images.",
        )
    return found("S25", "", "pass", widest, f"{len(images.ids)} images, the same for all; widest is {told}.")
