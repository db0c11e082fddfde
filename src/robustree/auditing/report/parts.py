"""Parts of a report that only some audits have: curves, cascades, the images that fall most easily, and checks."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from robustree.auditing import curve_file
from robustree.auditing.checks import check
from robustree.auditing.report.charts import percent, points
from robustree.auditing.report.curve_charts import Line, draw_eps, draw_steps
from robustree.auditing.report.gallery import Exhibit
from robustree.auditing.report.text import subject_name
from robustree.taxonomy.forest import Forest

GRAVE = ("fail", "flag", "not applicable", "pass")
"""Statuses of checks, the gravest first."""


def find_curves(folder: Path, forest: Forest) -> dict[str, Any] | None:
    """What `read_curves` reads; None if the folder holds none.

    Raises:
        ValueError: they are damaged, or were measured over another forest.
    """
    if not (folder / curve_file.FILE).exists():
        return None
    curves = curve_file.read_curves(folder)
    found = curves["protocol"].get("forest")
    if found != forest.fingerprint:
        raise ValueError(
            f"{curve_file.FILE} was measured over forest {found}, but forest.json is {forest.fingerprint}: delete it, "
            "and --curves measures it again."
        )
    return curves


def curve_figures(curves: Mapping[str, Any] | None, models: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The curves as figures.json holds them: protocol, number of images, and the points of every subject that has rows,
    in the order of `models`; None if there is none."""
    found = {(s["model"], s["head"]): s for s in curves["subjects"]} if curves else {}
    kept = [found[key] for key in ((model["model"], model["head"]) for model in models) if key in found]
    if curves is None or not kept:
        return None
    names = ("model", "head", "levels", "means")
    return {
        "protocol": curves["protocol"],
        "images": len(curves["images"]),
        "subjects": [{name: subject[name] for name in names} for subject in kept],
    }


def find_checks(folder: Path) -> list[dict[str, Any]] | None:
    """The audit's checks as plain data; None if the folder holds none."""
    if not (folder / check.FILE).exists():
        return None
    return [asdict(found) for found in check.read_checks(folder)]


def curve_panels(figures: Mapping[str, Any], forest: Forest) -> list[dict[str, Any]]:
    """The charts of the leaf, of the mean of the superclasses and of the coarsest level of each tree: {"title", "eps",
    "steps"}; none without curves."""
    curves = figures["curves"]
    if curves is None:
        return []
    subjects = curves["subjects"]
    models = [(subject["model"], subject["head"]) for subject in figures["models"]]
    chances = {cut["label"]: cut["chance"] for cut in figures["cuts"]}
    wanted: list[tuple[str, str, str]] = [("leaf", "levels", "leaf")]
    if subjects[0]["means"]["superclasses"]:
        wanted.append(("Mean of the superclass levels", "means", "superclasses"))
    wanted += [
        (label, "levels", label)
        for label in (f"{tree.name}/{len(tree.levels)}" for tree in forest.trees if tree.levels)
    ]
    threat, panels = curves["protocol"]["threat"], []
    for title, group, key in wanted:
        lines = {axis: [_line(s, figures, models, s[group][key][axis]) for s in subjects] for axis in curve_file.AXES}
        chance = chances[key] if group == "levels" else None
        eps = draw_eps(f"{title}, over eps", lines["eps"], norm=threat["norm"], audited=threat["eps"], chance=chance)
        steps = draw_steps(f"{title}, over steps", lines["steps"], chance=chance)
        panels.append({"title": title, "eps": Markup(eps), "steps": Markup(steps)})
    return panels


def _line(
    subject: Mapping[str, Any], figures: Mapping[str, Any], models: Sequence[tuple[str, str]], found: Any
) -> Line:
    return Line(subject_name(subject, figures), models.index((subject["model"], subject["head"])), found)


def curve_reading(figures: Mapping[str, Any]) -> list[str]:
    """Two sentences: what stands at the largest eps, and what the last doubling of steps still took."""
    curves = figures["curves"]
    if curves is None:
        return []
    subjects = curves["subjects"]
    kept = [(s["means"]["levels"]["eps"][-1]["value"], subject_name(s, figures)) for s in subjects]
    most, name = max(kept)
    eps = curves["protocol"]["eps"][-1]
    largest = f"{eps * 255:g}/255" if curves["protocol"]["threat"]["norm"] == "linf" else f"{eps:g}"
    found = [
        f"At ε = {largest}, the largest, {name} keeps most: {percent(most)} of its decisions, averaged over levels."
    ]
    steps = curves["protocol"]["steps"]
    if len(steps) > 1:
        drops = [
            (curve["steps"][-2]["value"] - curve["steps"][-1]["value"], label, subject_name(s, figures))
            for s in subjects
            for label, curve in s["levels"].items()
        ]
        drop, label, owner = max(drops)
        start = f"Going from {steps[-2]} to {steps[-1]} steps"
        found.append(
            f"{start} takes at most {points(drop).lstrip('+')} points more ({owner} at {label})."
            if drop
            else f"{start} breaks no further image."
        )
    return found


def check_groups(checks: Sequence[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    """The checks for the page: {"count": {status: number}, "open": failed and flagged ones, "all": gravest first}."""
    if checks is None:
        return None
    count = Counter(entry["status"] for entry in checks)
    ordered = sorted(checks, key=lambda entry: GRAVE.index(entry["status"]))  # stable: ids stay in order
    return {
        "count": {status: count[status] for status in GRAVE},
        "open": [entry for entry in ordered if entry["status"] in ("fail", "flag")],
        "all": ordered,
    }


def cascade_names(figures: Mapping[str, Any]) -> dict[str, list[str]]:
    """Every cascade that some model met, with its stages."""
    found: dict[str, dict[str, None]] = {}
    for subject in figures["models"]:
        for name, cascade in subject["cascades"].items():
            found.setdefault(name, {}).update(dict.fromkeys(cascade["stages"]))
    return {name: list(stages) for name, stages in found.items()}


def cascade_levels(figures: Mapping[str, Any]) -> dict[str, list[str]]:
    """The levels that each cascade was aimed at, in the order of the rows."""
    found: dict[str, dict[str, None]] = {}
    for subject in figures["models"]:
        for name, cascade in subject["cascades"].items():
            found.setdefault(name, {}).update(dict.fromkeys(level["attacked"] for level in cascade["levels"]))
    return {name: list(levels) for name, levels in found.items()}


def beside_names(figures: Mapping[str, Any]) -> list[list[str]]:
    """For each model with several attacks on one level, their names."""
    found = [
        list(dict.fromkeys(name for level in subject["beside"] for name in level["attacks"]))
        for subject in figures["models"]
    ]
    return [names for names in found if names]


def rebuild_command(directory: str | Path) -> str:
    """The command that writes the report again."""
    return shlex.join(["robustree", "report", str(directory)])


def fragile_entries(figures: Mapping[str, Any], gallery: Sequence[Exhibit]) -> list[dict[str, Any]]:
    """The images that fall most easily, each with its clean picture (a data URI) if the gallery shows it."""
    pictures = {exhibit.image: exhibit.pictures[0] for exhibit in reversed(gallery)}
    fragile = figures["fragile"]
    return [entry | {"picture": pictures.get(entry["image"])} for entry in fragile["images"]] if fragile else []
