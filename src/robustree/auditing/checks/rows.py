"""The audit's rows, counted again; S19 and S25."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from robustree.auditing.checks.case import listed, percent
from robustree.auditing.checks.catalogue import HALF_WIDTH
from robustree.auditing.checks.check import Check, found
from robustree.auditing.metrics import figures
from robustree.auditing.plan import Plan
from robustree.auditing.rows import Row, key_of
from robustree.auditing.statistics import wilson
from robustree.data import AuditImages
from robustree.taxonomy import Cut, Forest

Robust = dict[tuple[str, str, str], tuple[int, int | None, int]]
"""(model, head, level) -> how many images are right, robust under the attacks on that level (None without), and all."""


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows of an audit, by key and counted."""

    rows: Sequence[Row]
    forest: Forest

    @cached_property
    def of(self) -> dict[tuple[str, str, str, str, str], Row]:
        return {key_of(row): row for row in self.rows}

    @cached_property
    def passes(self) -> dict[tuple[str, str], dict[tuple[str, str], dict[str, Row]]]:
        """(model, head) -> (attack, attacked) -> image -> row."""
        found: dict[tuple[str, str], dict[tuple[str, str], dict[str, Row]]] = {}
        for row in self.rows:
            runs = found.setdefault((row["model"], row["head"]), {})
            runs.setdefault((row["attack"], row["attacked"]), {})[row["image"]] = row
        return found

    def right(self, subject: tuple[str, str], run: tuple[str, str], cut: Cut) -> set[str]:
        """The images whose own decision at a level is right in a run; an invalid image counts as it was when clean."""
        clean = self.passes[subject]["clean", ""]
        rows = self.passes[subject][run]
        chosen = {image: row if row["valid"] else clean[image] for image, row in rows.items()}
        return {image for image, row in chosen.items() if row["direct"][cut.label] == cut.of_leaf[row["leaf"]]}

    def aimed(self, subject: tuple[str, str], cut: Cut) -> set[str] | None:
        """The images that are right when clean and under every attack on this level; None if there is none."""
        runs = [run for run in self.passes[subject] if run[1] == cut.label]
        if not runs:
            return None
        standing = self.right(subject, ("clean", ""), cut)
        return standing.intersection(*(self.right(subject, run, cut) for run in runs))

    def counted(self) -> Robust:
        counts: Robust = {}
        for subject in self.passes:
            for cut in self.forest.cuts():
                robust = self.aimed(subject, cut)
                clean = self.right(subject, ("clean", ""), cut)
                total = len(self.passes[subject]["clean", ""])
                counts[*subject, cut.label] = len(clean), None if robust is None else len(robust), total
        return counts


def counting(rows: Rows, images: AuditImages, plan: Plan, subjects: Sequence[tuple[str, str]]) -> Check:
    """S19: is every row there once, and does a second count agree with the audit's figures?"""
    double = [" ".join(key) for key, count in Counter(map(key_of, rows.rows)).items() if count > 1]
    if double:
        return found("S19", "", "fail", len(double), f"rows occur twice ({listed(double)}): delete one of each.")
    runs = [(run.name, run.attacked) for run in plan.runs(rows.forest)]
    missing = [
        f"{image} of {model}/{head} under {attack} {attacked}".rstrip()
        for model, head in subjects
        for attack, attacked in runs
        for image in images.ids
        if (image, model, head, attack, attacked) not in rows.of
    ]
    if missing:
        return found(
            "S19", "", "fail", len(missing), f"{len(missing)} rows are missing ({listed(missing)}): finish the audit."
        )
    try:
        published = figures(rows.rows, rows.forest, resamples=100)
    except ValueError as error:
        return found("S19", "", "fail", None, f"no figures can be made of the rows ({error}): repair them.")
    counts, wrong = rows.counted(), []
    for model in published["models"]:
        for level in model["cuts"]:
            clean, robust, total = counts[model["model"], model["head"], level["cut"]]
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
        "S19", "", "pass", 0, f"{len(rows.rows)} rows, {len(counts)} robust accuracies counted twice, all equal."
    )


def statistics(rows: Rows, images: AuditImages) -> Check:
    """S25: the same images for every model, and enough of them?"""
    sets = {f"{model}/{head}": set(runs.get(("clean", ""), {})) for (model, head), runs in rows.passes.items()}
    unequal = [name for name, ids in sets.items() if ids != set(images.ids)]
    if unequal:
        return found(
            "S25",
            "",
            "fail",
            len(unequal),
            f"{', '.join(unequal)} were not given the audit's {len(images.ids)} images: models can only be compared on "
            "the same ones.",
        )
    widest, told = 0.0, "no level was attacked"
    for (model, head, label), (clean, robust, n) in rows.counted().items():
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
