"""Two models on the same images: paired differences, McNemar's test, and the audit's headline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from robustree.auditing.outcomes import Outcomes, rate
from robustree.auditing.statistics import holm, mcnemar, percentile_interval, resampled_means
from robustree.auditing.table import READOUTS, Subject, Table, read_table
from robustree.taxonomy.forest import Forest


def compare(
    rows: Iterable[Mapping[str, Any]],
    forest: Forest,
    model_a: str,
    head_a: str,
    model_b: str,
    head_b: str,
    *,
    readout: str = "direct",
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the paired comparison of two (model, head) under the worst case of the attacks that both met.

    `difference` and `clean_difference` are mean accuracies over all cuts, a minus b, with a paired bootstrap
    95 % interval over images. Per cut: both rates, the images that only a or only b keeps, McNemar's exact
    two-sided p and its Holm adjustment over the cuts.
    Raises ValueError for refused rows, an unknown model, head or readout, one and the same (model, head)
    twice, and for two that share no attack.
    """
    if readout not in READOUTS:
        raise ValueError(f"readout is {readout!r}, but must be one of {', '.join(READOUTS)}.")
    table = read_table(rows, forest)
    first, second = table.subject(model_a, head_a), table.subject(model_b, head_b)
    if first is second:
        raise ValueError(f"{model_a}/{head_a} is compared with itself: name two different models or heads.")
    return compare_subjects(table, first, second, readout=readout, resamples=resamples, seed=seed)


def compare_subjects(
    table: Table, first: Subject, second: Subject, *, readout: str, resamples: int, seed: int
) -> dict[str, Any]:
    """Return `compare` of two subjects of one table."""
    labels = [run.label for run in first.runs]
    shared = [label for label in labels if label in {run.label for run in second.runs}]
    if not shared:
        raise ValueError(
            f"{first.model}/{first.head} and {second.model}/{second.head} share no attack: "
            "audit both with the same attacks."
        )
    a, b = (
        Outcomes(table, subject).robust(readout, [run for run in subject.runs if run.label in shared])
        for subject in (first, second)
    )
    clean_a, clean_b = (Outcomes(table, subject).robust(readout, ()) for subject in (first, second))
    gaps = np.column_stack(
        [
            a.mean(axis=1) - b.mean(axis=1),
            clean_a.mean(axis=1) - clean_b.mean(axis=1),
        ]
    )
    samples = resampled_means(gaps, resamples=resamples, seed=seed)
    means = []
    for column in range(2):
        low, high = percentile_interval(samples[:, column])
        means.append({"value": float(gaps[:, column].mean()), "low": low, "high": high})
    cuts = []
    for index, cut in enumerate(table.cuts):
        only_a = int((a[:, index] & ~b[:, index]).sum())
        only_b = int((b[:, index] & ~a[:, index]).sum())
        cuts.append(
            {
                "cut": cut.label,
                "a": rate(int(a[:, index].sum()), len(a)),
                "b": rate(int(b[:, index].sum()), len(b)),
                "only_a": only_a,
                "only_b": only_b,
                "p": mcnemar(only_a, only_b),
            }
        )
    for entry, adjusted in zip(cuts, holm([entry["p"] for entry in cuts]), strict=True):
        entry["p_holm"] = adjusted
    everything = dict.fromkeys([*labels, *(run.label for run in second.runs)])
    return {
        "a": {"model": first.model, "head": first.head},
        "b": {"model": second.model, "head": second.head},
        "readout": readout,
        "attacks": shared,
        "left_out": [label for label in everything if label not in shared],
        "difference": means[0],
        "clean_difference": means[1],
        "clear": means[0]["low"] > 0 or means[0]["high"] < 0,
        "cuts": cuts,
    }


def headline(subjects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the facts of the report's first sentence, read from the figures of every (model, head).

    `strongest` keeps the highest mean accuracy over all cuts in the worst case; `runner_up` is the best other
    model (or, for want of one, another head); `breaks_most` loses the largest share of its right decisions at
    superclasses. `weakest_cut` is where the strongest keeps least. Each is None where the rows hold no attack
    (or no superclass, or no second model).
    """
    attacked = [subject for subject in subjects if subject["means"]["direct"]["levels"]["worst"]]
    ranked = sorted(attacked, key=lambda subject: -subject["means"]["direct"]["levels"]["worst"]["value"])
    losing = [subject for subject in attacked if (subject["means"]["direct"]["superclasses"] or {}).get("lost")]
    losing.sort(key=lambda subject: -subject["means"]["direct"]["superclasses"]["lost"]["value"])
    weakest, runner_up = None, None
    if ranked:
        others = [subject for subject in ranked[1:] if subject["model"] != ranked[0]["model"]] or ranked[1:]
        runner_up = _named(others[0], "levels") if others else None
        lowest = min(ranked[0]["cuts"], key=lambda cut: cut["readouts"]["direct"]["worst"]["value"])
        weakest = {"cut": lowest["cut"], "worst": lowest["readouts"]["direct"]["worst"]}
    return {
        "strongest": _named(ranked[0], "levels") if ranked else None,
        "runner_up": runner_up,
        "breaks_most": _named(losing[0], "superclasses") if losing else None,
        "weakest_cut": weakest,
    }


def _named(subject: Mapping[str, Any], scope: str) -> dict[str, Any]:
    means = subject["means"]["direct"][scope]
    names = {"model": subject["model"], "head": subject["head"]}
    superclasses = subject["means"]["direct"]["superclasses"]
    lost = superclasses and superclasses["lost"]
    return names | {"clean": means["clean"], "worst": means["worst"], "lost_superclasses": lost}
