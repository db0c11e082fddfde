"""The figures of benchmarks/encoder.py as Markdown, and how an attack on one level reaches the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from pages import put, spread

from robustree.auditing.metrics import figures
from robustree.taxonomy import Forest

PAGE = Path(__file__).parent / "encoder.md"
COLUMNS = (
    "clean_leaf",
    "clean_levels_mean",
    "robust_leaf",
    "robust_levels_mean",
    "robust_balanced_mean",
    "any_level_mean",
)
FLAT = ("tecoa", "pmg_aft", "fare", "agft")


def transferred(rows: Sequence[Mapping[str, Any]], forest: Forest) -> dict[str, float]:
    """Of the decisions that are right on clean images, the share that an attack changes: at its own level, at the
    other levels for an attack on the leaf, and at the leaf for an attack on another level."""
    (subject,) = figures(rows, forest, resamples=100)["models"]
    (matrix,) = subject["transfer"].values()
    share = {
        (attacked, evaluated): rate["value"]
        for attacked, row in zip(matrix["attacked"], matrix["success"], strict=True)
        for evaluated, rate in zip(matrix["evaluated"], row, strict=True)
        if rate is not None  # no decision there is right on clean images, so none can be changed
    }
    return {
        "own": mean(value for (attacked, evaluated), value in share.items() if attacked == evaluated),
        "leaf_to_levels": mean(v for (attacked, level), v in share.items() if attacked == "leaf" != level),
        "levels_to_leaf": mean(v for (attacked, level), v in share.items() if attacked != "leaf" == level),
    }


def write_page(content: Mapping[str, Any], methods: Sequence[str], seeds: Sequence[int]) -> None:
    """Put the tables between their marks in encoder.md, over the seeds for which every method is there."""
    rows = content["rows"]
    whole = complete(rows, methods, seeds)
    parts = {group: accuracies(rows, group, methods, whole) for group in ("seen", "unseen")}
    parts |= {f"{group} differences": differences(rows, group, whole) for group in ("seen", "unseen")}
    if attacked := complete(content["transfer"], methods, seeds):
        parts["transfer"] = transfer(content["transfer"], methods, attacked)
    parts["sweep"] = sweep(content["sweep"])
    for name, lines in parts.items():
        put(PAGE, "\n".join(lines) + "\n", f"<!-- {name} -->\n", f"<!-- end of {name} -->")
        print("\n".join([name, *lines]))


def complete(rows: Mapping[str, Any], methods: Sequence[str], seeds: Sequence[int]) -> list[int]:
    return [seed for seed in seeds if all(f"{name}-{seed}" in rows for name in methods)]


def _head(first: str, columns: Sequence[str]) -> list[str]:
    names = (column.replace("_", " ") for column in columns)
    return [f"| {first} | " + " | ".join(names) + " |", "|---" * (len(columns) + 1) + "|"]


def accuracies(rows: Mapping[str, Any], group: str, methods: Sequence[str], seeds: Sequence[int]) -> list[str]:
    lines = _head("method", COLUMNS)
    for name in methods:
        own = [rows[f"{name}-{seed}"][group] for seed in seeds]
        lines.append(f"| {name} | " + " | ".join(spread([row[column] for row in own]) for column in COLUMNS) + " |")
    return lines


def differences(rows: Mapping[str, Any], group: str, seeds: Sequence[int]) -> list[str]:
    """Each hierarchical run minus each flat one, same seed and images."""
    lines = _head("difference", COLUMNS)
    for one in ("hrft", "hrft_5trees"):
        for other in FLAT:
            pairs = [(rows[f"{one}-{seed}"][group], rows[f"{other}-{seed}"][group]) for seed in seeds]
            cells = [spread([first[column] - second[column] for first, second in pairs], "+") for column in COLUMNS]
            lines.append(f"| {one} − {other} | " + " | ".join(cells) + " |")
    return lines


def transfer(rows: Mapping[str, Any], methods: Sequence[str], seeds: Sequence[int]) -> list[str]:
    columns = ("own", "leaf_to_levels", "levels_to_leaf")
    lines = _head("method", columns)
    for name in methods:
        own = [rows[f"{name}-{seed}"] for seed in seeds]
        lines.append(f"| {name} | " + " | ".join(spread([row[column] for row in own]) for column in columns) + " |")
    return lines


def sweep(rows: Mapping[str, Any]) -> list[str]:
    columns = ("clean_levels_mean", "robust_leaf", "robust_levels_mean")
    lines = _head("method | learning rate", columns)
    lines[1] += "---|"
    for row in sorted(rows.values(), key=lambda row: (row["method"], row["lr"])):
        cells = " | ".join(f"{100 * row[column]:.1f}" for column in columns)
        lines.append(f"| {row['method']} | {row['lr']:g} | {cells} |")
    return lines
