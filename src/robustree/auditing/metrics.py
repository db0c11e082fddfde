"""Figures of an audit: pure functions of its rows and its forest, as plain data that JSON can hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from robustree.auditing.breaking import attack_figures, cascade_figures, fragile_images
from robustree.auditing.comparing import compare, compare_subjects, headline
from robustree.auditing.hierarchy import hierarchy_figures
from robustree.auditing.outcomes import Outcomes, mean_figures, rate
from robustree.auditing.table import READOUTS, Run, Subject, Table, aimed_label, read_table
from robustree.taxonomy.forest import Forest

__all__ = ["compare", "figures", "table_figures"]

FORMAT = "robustree-figures/1"


def figures(
    rows: Iterable[Mapping[str, Any]],
    forest: Forest,
    *,
    spearman: Mapping[str, float] | None = None,
    stages: Mapping[str, Sequence[str]] | None = None,
    curves: Mapping[str, Any] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return every figure of an audit, per (model, head).

    A rate is {value, low, high, count, n} with its Wilson 95 % interval; a mean is {value, low, high} with a
    percentile bootstrap interval over images (`resamples`, `seed`). A figure that the rows cannot give is
    None: it is never borrowed from another attack or readout. An image is robust at a cut under some attacks
    if its clean decision and its decision under each of them are right, so robust <= clean always.
    `spearman` ("model/head" -> depth-norm rank correlation) is measured by the audit and passed through. `stages`: the
    attacks that are cascades, with the names of their stages; `curves`: what `read_curves` read.

    Raises ValueError for rows that `read_table` refuses and for a `spearman` key that names no model.
    """
    return table_figures(
        read_table(rows, forest), spearman=spearman, stages=stages, curves=curves, resamples=resamples, seed=seed
    )


def table_figures(
    table: Table,
    *,
    spearman: Mapping[str, float] | None = None,
    stages: Mapping[str, Sequence[str]] | None = None,
    curves: Mapping[str, Any] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return `figures` of rows that have been read."""
    forest = table.forest
    given = dict(spearman or {})
    subjects = [
        _subject_figures(table, subject, given.pop(f"{subject.model}/{subject.head}", None), resamples, seed)
        | _breaking(Outcomes(table, subject), stages or {})
        for subject in table.subjects
    ]
    if given:
        known = ", ".join(f"{subject.model}/{subject.head}" for subject in table.subjects)
        raise ValueError(f"spearman names {next(iter(given))!r}, which has no rows: choose among {known}.")
    lead = headline(subjects)
    best = lead["strongest"]
    comparisons = []
    if best is not None:
        first = table.subject(best["model"], best["head"])
        comparisons = [
            compare_subjects(table, first, second, readout="direct", resamples=resamples, seed=seed)
            for second in table.subjects
            if second is not first and {run.label for run in first.runs} & {run.label for run in second.runs}
        ]
    return {
        "format": FORMAT,
        "forest": forest.fingerprint,
        "images": len(table.images),
        "confidence": 0.95,
        "resamples": resamples,
        "seed": seed,
        "cuts": [_cut_figures(table, index) for index in range(len(table.cuts))],
        "trees": [tree.name for tree in forest.trees],
        "models": subjects,
        "comparisons": comparisons,
        "fragile": fragile_images(table, curves),
        "headline": lead,
    }


def _breaking(outcomes: Outcomes, stages: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    return {"cascades": cascade_figures(outcomes, stages), "beside": attack_figures(outcomes)}


def _cut_figures(table: Table, index: int) -> dict[str, Any]:
    cut = table.cuts[index]
    largest = int(np.bincount(table.truth[:, index], minlength=len(cut.nodes)).max())
    return {
        "label": cut.label,
        "tree": cut.tree if cut.level else None,
        "level": cut.level,
        "n": len(table.images),
        "nodes": len(cut.nodes),
        "chance": 1 / len(cut.nodes),
        "majority": rate(largest, len(table.images)),
    }


def _subject_figures(
    table: Table, subject: Subject, spearman: float | None, resamples: int, seed: int
) -> dict[str, Any]:
    outcomes = Outcomes(table, subject)
    return {
        "model": subject.model,
        "head": subject.head,
        "attacks": [_run_figures(run, len(table.images)) for run in subject.runs],
        "cuts": [_level_figures(outcomes, index) for index in range(len(table.cuts))],
        "any_level": _any_level(outcomes),
        "means": mean_figures(outcomes, resamples=resamples, seed=seed),
        "transfer": {attack: _transfer(outcomes, attack) for attack in outcomes.attacks},
        "hierarchy": {
            tree.name: {
                "clean": hierarchy_figures(table, tree.name, subject.clean, resamples=resamples, seed=seed),
                "leaf": {
                    run.attack: hierarchy_figures(table, tree.name, run, resamples=resamples, seed=seed)
                    for run in subject.runs
                    if run.attacked == "leaf"
                },
            }
            for tree in table.forest.trees
        },
        "spearman": spearman,
    }


def _run_figures(run: Run, n: int) -> dict[str, Any]:
    return {
        "attack": run.attack,
        "attacked": run.attacked,
        "n": n,
        "distance": run.distance,
        "invalid": list(run.invalid),
    }


def _level_figures(outcomes: Outcomes, index: int) -> dict[str, Any]:
    cut, subject = outcomes.table.cuts[index], outcomes.subject
    readouts = {}
    for readout in READOUTS:
        aimed = aimed_label(cut, readout)
        readouts[readout] = {
            "clean": outcomes.rate(readout, index, ()),
            "aimed": {name: outcomes.rate_at(readout, index, name, aimed) for name in outcomes.attacks},
            "aimed_worst": outcomes.rate_at(readout, index, None, aimed),
            "all": {name: outcomes.rate_at(readout, index, name, "all") for name in outcomes.attacks},
            "worst": outcomes.rate(readout, index, subject.runs) if subject.runs else None,
        }
    return {"cut": cut.label, "readouts": readouts, "overlooked": _overlooked(outcomes, index)} | {
        "by_node": _by_node(outcomes, index)
    }


def _overlooked(outcomes: Outcomes, index: int) -> dict[str, Any] | None:
    """Return how many images only an attack from elsewhere breaks: the aimed attack is then too weak."""
    runs = outcomes.select(None, outcomes.table.cuts[index].label)
    if not runs:
        return None
    aimed = outcomes.robust("direct", runs)[:, index]
    worst = outcomes.robust("direct", outcomes.subject.runs)[:, index]
    return rate(int((aimed & ~worst).sum()), len(aimed))


def _by_node(outcomes: Outcomes, index: int) -> list[dict[str, Any]]:
    table, cut = outcomes.table, outcomes.table.cuts[index]
    clean = outcomes.robust("direct", ())[:, index]
    worst = outcomes.robust("direct", outcomes.subject.runs)[:, index]
    found = []
    for position, node in enumerate(cut.nodes):
        inside = table.truth[:, index] == position
        n = int(inside.sum())
        kept = rate(int(worst[inside].sum()), n) if outcomes.subject.runs else None
        found.append(
            {
                "node": node,
                "name": table.forest.names[node],
                "n": n,
                "clean": rate(int(clean[inside].sum()), n),
                "worst": kept,
            }
        )
    return found


def _any_level(outcomes: Outcomes) -> dict[str, Any]:
    """Return the rates of images right at every level: on clean images, and under every attack in the rows."""
    table, subject = outcomes.table, outcomes.subject
    scopes = {"levels": list(range(len(table.cuts)))} | {
        tree.name: outcomes.tree_cuts(tree.name) for tree in table.forest.trees
    }
    figures_of = {}
    for name, indices in scopes.items():
        clean = outcomes.robust("direct", ())[:, indices].all(axis=1)
        worst = outcomes.robust("direct", subject.runs)[:, indices].all(axis=1)
        labels = [table.cuts[index].label for index in indices]
        figures_of[name] = {
            "clean": rate(int(clean.sum()), len(table.images)),
            "worst": rate(int(worst.sum()), len(table.images)) if subject.runs else None,
            "unattacked": [label for label in labels if not outcomes.select(None, label)],
        }
    return {"levels": figures_of.pop("levels"), "trees": figures_of}


def _transfer(outcomes: Outcomes, attack: str) -> dict[str, Any]:
    runs = [run for run in outcomes.subject.runs if run.attack == attack]
    clean = outcomes.robust("direct", ())
    success = []
    for run in runs:
        broken = clean & ~outcomes.table.correct(run, "direct")
        success.append([rate(int(hit), int(n)) for hit, n in zip(broken.sum(axis=0), clean.sum(axis=0), strict=True)])
    return {
        "attacked": [run.attacked for run in runs],
        "evaluated": [cut.label for cut in outcomes.table.cuts],
        "success": success,
    }
