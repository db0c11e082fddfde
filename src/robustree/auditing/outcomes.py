"""Who survives what: clean and robust decisions of one (model, head), their rates and their means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustree.auditing.statistics import percentile_interval, resampled_means, wilson
from robustree.auditing.table import READOUTS, Mask, Run, Subject, Table, aimed_label


def rate(count: int, n: int) -> dict[str, Any] | None:
    """Return count / n as {value, low, high, count, n} with its Wilson 95 % interval; None if n = 0."""
    if n == 0:
        return None
    low, high = wilson(count, n)
    return {"value": count / n, "low": low, "high": high, "count": count, "n": n}


@dataclass(frozen=True)
class Outcomes:
    """The decisions of one subject against the truth of its table."""

    table: Table
    subject: Subject

    @cached_property
    def attacks(self) -> tuple[str, ...]:
        """The attacks in the rows, in the order in which they occur."""
        return tuple(dict.fromkeys(run.attack for run in self.subject.runs))

    def select(self, attack: str | None, attacked: str) -> tuple[Run, ...]:
        """Return the runs aimed at a label, of one attack or (None) of all."""
        return tuple(run for run in self.subject.runs if run.attacked == attacked and attack in (None, run.attack))

    def robust(self, readout: str, runs: Sequence[Run]) -> Mask:
        """Return (n, cuts): right on the clean image and under each of these runs."""
        mask = self.table.correct(self.subject.clean, readout)
        for run in runs:
            mask = mask & self.table.correct(run, readout)
        return mask

    def rate(self, readout: str, index: int, runs: Sequence[Run]) -> dict[str, Any] | None:
        """Return the rate of images robust at the cut of that index under these runs."""
        mask = self.robust(readout, runs)[:, index]
        return rate(int(mask.sum()), len(mask))

    def rate_at(self, readout: str, index: int, attack: str | None, attacked: str) -> dict[str, Any] | None:
        """Return the robust rate under the runs aimed at a label; None if the rows hold no such run."""
        runs = self.select(attack, attacked)
        return self.rate(readout, index, runs) if runs else None

    def tree_cuts(self, tree_name: str) -> list[int]:
        """Return the indices of the leaf cut and of a tree's cuts."""
        return [i for i, cut in enumerate(self.table.cuts) if cut.level == 0 or cut.tree == tree_name]

    def aimed(self, readout: str, attack: str | None, indices: Sequence[int]) -> NDArray[np.float64] | None:
        """Return each image's mean over cuts of being robust to the attack aimed at that cut and readout."""
        columns = []
        for index in indices:
            runs = self.select(attack, aimed_label(self.table.cuts[index], readout))
            if not runs:
                return None
            columns.append(self.robust(readout, runs)[:, index])
        return np.mean(columns, axis=0)

    @cached_property
    def balance(self) -> NDArray[np.float64]:
        """Return (n, cuts): n / (K m), for an image whose node has m images, among the K nodes of a cut that have any.

        The mean over images of a decision times this is balanced accuracy: the mean over nodes of the share of their
        images that is right, 1 / K for a model that always gives one answer.
        """
        columns = []
        for truth in self.table.truth.T:
            counts = np.bincount(truth)
            columns.append(len(truth) / (np.count_nonzero(counts) * counts[truth]))
        return np.column_stack(columns)


def mean_figures(outcomes: Outcomes, *, resamples: int, seed: int) -> dict[str, Any]:
    """Return means over levels, per readout: {levels, superclasses, trees: {name}} of clean and robust.

    `levels` averages over all cuts (the leaf counts once), `superclasses` over all but the leaf, a tree over
    the leaf and its own levels. Each scope holds clean, aimed {attack}, aimed_worst, all {attack}, worst,
    `lost` = 1 - worst / clean, and `balanced` {clean, worst}, where the nodes of a cut count the same however many
    images they have (Brodersen et al., ICPR 2010). Means over images of means over cuts, with bootstrap 95 % intervals.
    """
    scopes = {"levels": list(range(len(outcomes.table.cuts)))}
    scopes["superclasses"] = scopes["levels"][1:]
    found = {}
    for readout in READOUTS:
        found[readout] = {name: _scope(outcomes, readout, indices, resamples, seed) for name, indices in scopes.items()}
        found[readout]["trees"] = {
            tree.name: _scope(outcomes, readout, outcomes.tree_cuts(tree.name), resamples, seed)
            for tree in outcomes.table.forest.trees
        }
    return found


def _scope(
    outcomes: Outcomes, readout: str, indices: Sequence[int], resamples: int, seed: int
) -> dict[str, Any] | None:
    if not indices:
        return None

    def decided(runs: Sequence[Run]) -> Mask:
        return outcomes.robust(readout, runs)[:, list(indices)]

    balance, attacked = outcomes.balance[:, list(indices)], outcomes.subject.runs
    clean, worst = decided(()), decided(attacked) if attacked else None
    columns: dict[tuple[str, ...], NDArray[np.float64] | None] = {
        ("clean",): clean.mean(axis=1),
        ("aimed_worst",): outcomes.aimed(readout, None, indices),
        ("worst",): None if worst is None else worst.mean(axis=1),
        ("balanced", "clean"): (clean * balance).mean(axis=1),
        ("balanced", "worst"): None if worst is None else (worst * balance).mean(axis=1),
    }
    for attack in outcomes.attacks:
        columns["aimed", attack] = outcomes.aimed(readout, attack, indices)
        runs = outcomes.select(attack, "all")
        columns["all", attack] = decided(runs).mean(axis=1) if runs else None
    present = {name: column for name, column in columns.items() if column is not None}
    values = np.column_stack(list(present.values()))
    samples = dict(zip(present, resampled_means(values, resamples=resamples, seed=seed).T, strict=True))
    figures: dict[str, Any] = {
        "clean": None,
        "aimed": {},
        "aimed_worst": None,
        "all": {},
        "worst": None,
        "balanced": {},
    }
    for name, column in columns.items():
        figure = None if column is None else _mean(float(column.mean()), samples[name])
        if len(name) == 1:
            figures[name[0]] = figure
        else:
            figures[name[0]][name[1]] = figure
    figures["lost"] = None
    if ("worst",) in samples and figures["clean"]["value"] > 0:
        drawn = samples["clean",]
        lost = 1 - samples["worst",] / np.where(drawn > 0, drawn, np.nan)
        figures["lost"] = _mean(1 - figures["worst"]["value"] / figures["clean"]["value"], lost)
    return figures


def _mean(value: float, samples: NDArray[np.float64]) -> dict[str, Any]:
    low, high = percentile_interval(samples)
    return {"value": value, "low": low, "high": high}
