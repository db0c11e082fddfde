"""Which attack broke which image: stages of cascades, attacks beside each other, and the images that fall most
easily."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robustree.auditing.outcomes import Outcomes, rate
from robustree.auditing.table import READOUTS, Run, Subject, Table, attacked_labels
from robustree.taxonomy.forest import Cut

SHOWN, NAMES = 12, 2
"""How many images are listed, and how many names of what each is taken for."""


def cascade_figures(outcomes: Outcomes, stages: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """For each cascade, the share of images by what became of them: {attack: {"stages", "levels": [...]}}.

    `stages` (attack -> names in their order) says which attacks are cascades; any attack whose rows name stages is one
    too, with its stages in the order in which the rows name them. A level holds "wrong" (before any attack), "broken"
    (stage -> rate), "unnamed" (broken, but by no stage on record) and "standing"; the five kinds add up to all images.
    """
    labels, found = attacked_labels(outcomes.table.cuts), {}
    for attack in outcomes.attacks:
        runs = [run for run in outcomes.subject.runs if run.attack == attack and run.attacked != "all"]
        named = dict.fromkeys(name for run in runs for name in run.broken_by if name)
        if attack not in stages and not named:
            continue
        order = list(dict.fromkeys([*stages.get(attack, ()), *named]))
        levels = []
        for run in runs:
            index, readout = labels[run.attacked]
            assert index is not None  # runs at "all" are left out above
            levels.append({"attacked": run.attacked} | _fates(outcomes, run, index, readout, order))
        if levels:
            found[attack] = {"stages": order, "levels": levels}
    return found


def _fates(outcomes: Outcomes, run: Run, index: int, readout: str, stages: Sequence[str]) -> dict[str, Any]:
    clean = outcomes.robust(readout, ())[:, index]
    standing = outcomes.robust(readout, (run,))[:, index]
    by = [name for name, lost in zip(run.broken_by, clean & ~standing, strict=True) if lost]
    n = len(clean)
    return {
        "wrong": rate(int((~clean).sum()), n),
        "broken": {stage: rate(by.count(stage), n) for stage in stages},
        "unnamed": rate(by.count(None), n),
        "standing": rate(int(standing.sum()), n),
    }


def attack_figures(outcomes: Outcomes) -> list[dict[str, Any]]:
    """Attacks on one level beside each other: for each level and readout that two or more of them aim at, {"attacked",
    "attacks": {name: {"robust", "only"}}, "together"}.

    `robust`: right on the clean image and under this attack; `only`: right on the clean image and under all of the
    others, but not under this one; `together`: right under all of them.
    """
    found = []
    for attacked, (index, readout) in attacked_labels(outcomes.table.cuts).items():
        runs = outcomes.select(None, attacked)
        if index is None or len(runs) < 2:
            continue
        masks = {run.attack: outcomes.robust(readout, (run,))[:, index] for run in runs}
        together = np.all(list(masks.values()), axis=0)
        entries = {}
        for name, mask in masks.items():
            others = np.all([other for key, other in masks.items() if key != name], axis=0)
            entries[name] = {
                "robust": rate(int(mask.sum()), len(mask)),
                "only": rate(int((others & ~mask).sum()), len(mask)),
            }
        found.append({"attacked": attacked, "attacks": entries, "together": rate(int(together.sum()), len(together))})
    return found


def fragile_images(table: Table, curves: Mapping[str, Any] | None, *, count: int = SHOWN) -> dict[str, Any] | None:
    """The images of which attacks break most: {"decisions", "tied", "images": [...]}; None if nothing breaks.

    A decision is one (model, head) at one level, right on the clean image; it is broken if some attack turns it. Images
    with equally many broken decisions (`tied`: how many have the most) are ordered by the mean eps at which decisions
    fall, where `curves` tells it (twice the largest eps for those that stand), then by name. An image has "broken",
    "eps" (the smallest at which a decision falls, None if unknown) and "taken_for" (the leaf and the coarsest level of
    each tree -> [{"name", "count"}], under attacks aimed at the level, or else under any).
    """
    broken = np.zeros(len(table.images), dtype=np.int64)
    for subject in table.subjects:
        outcomes = Outcomes(table, subject)
        broken += (outcomes.robust("direct", ()) & ~outcomes.robust("direct", subject.runs)).sum(axis=1)
    if not broken.any():
        return None
    eps = _eps_of(curves)
    unknown: list[float] = []

    def rank(position: int) -> tuple[int, float, str]:
        at = eps.get(table.images[position], unknown)
        return -int(broken[position]), sum(at) / len(at) if at else float("inf"), table.images[position]

    listed = [position for position in sorted(range(len(broken)), key=rank) if broken[position]][:count]
    largest = max(curves["protocol"]["eps"]) if curves else 0.0
    return {
        "decisions": len(table.subjects) * len(table.cuts),
        "tied": int((broken == broken.max()).sum()),
        "images": [
            {
                "image": table.images[position],
                "shows": table.forest.names[table.leaves[position]],
                "broken": int(broken[position]),
                "eps": next((e for e in sorted(eps.get(table.images[position], [])) if e <= largest), None),
                "taken_for": {
                    cut.label: _taken_for(table, index, position) for index, cut in _shown_cuts(table.cuts).items()
                },
            }
            for position in listed
        ],
    }


def _eps_of(curves: Mapping[str, Any] | None) -> dict[str, list[float]]:
    """The eps at which the decisions about each image fall that were right before."""
    if curves is None:
        return {}
    standing = 2 * max(curves["protocol"]["eps"])
    found: dict[str, list[float]] = {image: [] for image in curves["images"]}
    for subject in curves["subjects"]:
        for level in subject["fell"].values():
            for image, at in zip(curves["images"], level["eps"], strict=True):
                if at != 0:
                    found[image].append(standing if at is None else at)
    return found


def _shown_cuts(cuts: Sequence[Cut]) -> dict[int, Cut]:
    """The leaf and the coarsest level of each tree."""
    last = {cut.tree: index for index, cut in enumerate(cuts) if cut.level}
    return {index: cut for index, cut in enumerate(cuts) if cut.level == 0 or last[cut.tree] == index}


def _taken_for(table: Table, index: int, position: int) -> list[dict[str, Any]]:
    """The wrong nodes that models choose under attack, the most frequent first, and by how many of them."""
    names: Counter[str] = Counter()
    for subject in table.subjects:
        names.update(_wrong_names(table, subject, index, position))
    return [{"name": name, "count": times} for name, times in sorted(names.items(), key=_most)[:NAMES]]


def _most(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _wrong_names(table: Table, subject: Subject, index: int, position: int) -> set[str]:
    cut = table.cuts[index]
    truth = table.truth[position, index]
    if subject.clean.predicted[READOUTS[0]][position, index] != truth:
        return set()
    for runs in ([run for run in subject.runs if run.attacked == cut.label], subject.runs):
        nodes = {int(run.predicted[READOUTS[0]][position, index]) for run in runs} - {int(truth)}
        if nodes:
            return {table.forest.names[cut.nodes[node]] for node in nodes}
    return set()
