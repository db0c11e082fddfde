"""The sentences of a report, put together from figures that are already computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustree.auditing.report.charts import percent, points


def subject_name(subject: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """Return "hrft" for a model seen through one head, "hrft (cosine)" for one seen through several."""
    heads = [other["head"] for other in figures["models"] if other["model"] == subject["model"]]
    return subject["model"] if len(heads) == 1 else f"{subject['model']} ({subject['head']})"


def hero(figures: Mapping[str, Any]) -> list[str]:
    """Return the opening of the report: one to three sentences, the first one for the headline."""
    facts = figures["headline"]
    strongest, breaking = facts["strongest"], facts["breaks_most"]
    if strongest is None:
        return ["No attack has been run yet: these rows hold clean predictions only."]
    name = subject_name(strongest, figures)
    kept = f"{percent(strongest['worst']['value'])} of all decisions right"
    if facts["runner_up"] is None or breaking is None:
        opening = (
            f"Under attack, {name} falls from {percent(strongest['clean']['value'])} to "
            f"{percent(strongest['worst']['value'])}, averaged over every level."
        )
        return [opening, *_weakest(facts, name)]
    lost, breaks = percent(breaking["lost_superclasses"]["value"]), subject_name(breaking, figures)
    own = strongest["lost_superclasses"]
    if breaks == name or own is None:
        opening = f"Under attack, even {name}, the most robust, loses {lost} of its right superclass decisions."
    else:
        opening = (
            f"Under attack, {breaks} loses {lost} of its right superclass decisions; "
            f"{name}, the most robust, loses {percent(own['value'])}."
        )
    return [opening, _against_runner_up(figures, name, kept), *_weakest(facts, name)]


def _against_runner_up(figures: Mapping[str, Any], name: str, kept: str) -> str:
    runner_up = figures["headline"]["runner_up"]
    other = subject_name(runner_up, figures)
    start = f"{name} keeps {kept}, averaged over every level"
    for comparison in figures["comparisons"]:
        if (comparison["b"]["model"], comparison["b"]["head"]) == (runner_up["model"], runner_up["head"]):
            gap = comparison["difference"]
            interval = f"95 % interval {points(gap['low'])} to {points(gap['high'])}"
            if comparison["clear"]:
                return f"{start}: {points(gap['value'])} points against {other} ({interval})."
            return (
                f"{start}; {other} differs by {points(gap['value'])} points ({interval}), "
                "which is no clear difference on these images."
            )
    return f"{start}; {other} met other attacks, so the two are not compared."


def _weakest(facts: Mapping[str, Any], name: str) -> list[str]:
    weakest = facts["weakest_cut"]
    return [
        f"The weakest level of {name} is {weakest['cut']}, at {percent(weakest['worst']['value'])} in the worst case."
    ]


def notes(figures: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know before trusting the figures: one sentence or two for each finding."""
    found = []
    if figures["audit"].get("stop"):
        found.append(
            "The attacks stopped at the first image that turned the attacked decision: robust accuracy is unchanged "
            "by this, but transfer to other levels is that of a barely sufficient attack."
        )
    cascades = dict.fromkeys(name for subject in figures["models"] for name in subject["cascades"])
    if cascades and not figures["audit"].get("stop"):
        found.append(
            f"{', '.join(cascades)} leaves an image at the first success: transfer to other levels is that of a barely "
            "sufficient attack."
        )
    shared = [name for name, attack in figures["audit"].get("attacks", {}).items() if attack.get("share")]
    if shared:
        found.append(
            f"{', '.join(shared)} counts at every level what it found at any other: robust accuracy is never higher "
            "for it, but where an attack on one level lands cannot be read from its rows."
        )
    for subject in figures["models"]:
        name = subject_name(subject, figures)
        for run in subject["attacks"]:
            if run["invalid"]:
                found.append(
                    f"{name}: {len(run['invalid'])} of {run['n']} adversarial images of {run['attack']} at "
                    f"{run['attacked']} left the threat ({', '.join(run['invalid'])}). There the attack counts "
                    "as failed."
                )
        unattacked = subject["any_level"]["levels"]["unattacked"]
        if subject["attacks"] and unattacked:
            found.append(
                f"{name}: no attack was aimed at {', '.join(unattacked)}. The worst case there knows only "
                "attacks aimed elsewhere."
            )
        overlooked = [
            f"{cut['cut']} {cut['overlooked']['count']} of {cut['overlooked']['n']}"
            for cut in subject["cuts"]
            if cut["overlooked"] and cut["overlooked"]["count"]
        ]
        if overlooked:
            found.append(
                f"{name}: attacks aimed elsewhere broke images that those aimed at the level left standing "
                f"({', '.join(overlooked)}). The worst case counts them; the aimed attack is not yet at its strongest."
            )
    return found
