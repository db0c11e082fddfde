"""The tables and the picture of photos.py: `python benchmarks/photos_table.py`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import photos
from pages import put, spread
from photos import RUNS, SECOND, SEEDS, SEEN, SETTINGS, about
from quickstart_ablation import CLOSE, OPEN, picture

from robustree.writing import write_whole

HERE = Path(__file__).parent
SEEN_COLUMNS = {
    "clean_leaf": "clean: leaf",
    "clean_levels_mean": "clean: mean of levels",
    "robust_leaf": "robust: leaf",
    "robust_levels_mean": "robust: mean of levels",
    "robust_balanced_mean": "robust: mean, balanced",
    "any_level_mean": "right at every level of a tree",
}
FLAT = ("tecoa", "pmg_aft", "fare", "agft")


def table() -> None:
    """photos.json, photos.svg and the tables of photos.md, from the finished runs of every eps with three seeds."""
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RUNS.glob("eps-*/*/figures.json"))]
    later = {
        what: [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RUNS.glob(f"eps-*/*/{what}.json"))]
        for what in SECOND
    }
    lines: list[str] = []
    for eps in sorted({row["eps"] for row in rows}):
        here = [row for row in rows if row["eps"] == eps]
        if {(row["method"], row["seed"]) for row in here} != {(s.name, seed) for s in SETTINGS for seed in SEEDS}:
            raise ValueError(
                f"eps {eps}/255 has {len(here)} of {len(SETTINGS) * len(SEEDS)} runs: let `run` end first."
            )
        for part, title in (("seen", "hardened on"), ("unseen", "never hardened on")):
            flat = [{"method": row["method"], "seed": row["seed"]} | row[part] for row in here]
            classes = SEEN if part == "seen" else 200 - SEEN
            lines += [f"### eps {eps}/255, {classes} classes {title}", "", *compared(flat, SEEN_COLUMNS), ""]
            lines += differences(flat, ("robust_leaf", "robust_levels_mean", "robust_balanced_mean", "any_level_mean"))
        if ends := [row for row in later["ended"] if row["eps"] == eps]:
            lines += [f"### eps {eps}/255, attacks that go to their end, one tree", "", *landed(ends)]
        if ends := [row for row in later["strongest"] if row["eps"] == eps]:
            seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in ends}))
            lines += [f"### eps {eps}/255, with AutoAttack, one tree, seed {seeds}", "", *taken(ends)]
    main = min(row["eps"] for row in rows)
    shown = [
        {"method": row["method"], "seen": row["seen"]["robust_levels_mean"], "any": row["seen"]["any_level_mean"]}
        | {"unseen": row["unseen"]["robust_levels_mean"]}
        for row in rows
        if row["eps"] == main
    ]
    titles = {
        "seen": "robust, mean of levels, 150 classes (%)",
        "any": "robust at every level of a tree (%)",
        "unseen": "robust, mean of levels, 50 other classes (%)",
    }
    picture([setting.name for setting in SETTINGS], shown, titles, HERE / "photos.svg")
    plain = json.loads((RUNS / "plain" / "training.json").read_text(encoding="utf-8"))
    content = {"rows": rows, **later, "plain": plain, "protocol": photos.__doc__, **about("run (and ended, strongest)")}
    write_whole(HERE / "photos.json", json.dumps(content, indent=1) + "\n")
    put(HERE / "photos.md", "\n".join(lines), OPEN, CLOSE)
    print("\n".join(lines))


def compared(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    """A Markdown table: a line a method, mean and 95 % interval over seeds in percent."""
    lines = [f"| method | {' | '.join(columns.values())} |", "|---|" + "---|" * len(columns)]
    for setting in SETTINGS:
        own = [row for row in rows if row["method"] == setting.name]
        cells = [spread([row[column] for row in own]) for column in columns] if own else ["–"] * len(columns)
        lines.append(f"| {setting.name} | " + " | ".join(cells) + " |")
    return lines


def differences(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """HRFT minus each flat method on the same seed: the same classes and photographs."""
    found = {(row["method"], row["seed"]): row for row in rows}
    titles = " | ".join(SEEN_COLUMNS[column] for column in columns)
    lines = [f"| difference in points | {titles} |", "|---|" + "---|" * len(columns)]
    for ours, other in [(ours, other) for ours in ("hrft", "hrft_5trees") for other in FLAT]:
        cells = [spread([found[ours, s][column] - found[other, s][column] for s in SEEDS], "+") for column in columns]
        lines.append(f"| {ours} − {other} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def landed(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where attacks of one level land at others."""
    flat = []
    for row in rows:
        lands = row["transfer"]
        above = [label for label in lands if label != "leaf"]
        flat.append(
            {
                "method": row["method"],
                "leaf": lands["leaf"]["leaf"],
                "leaf_under": statistics.mean(lands[label]["leaf"] for label in above),
                "above": statistics.mean(lands[label][label] for label in above),
                "above_under": statistics.mean(lands["leaf"][label] for label in above),
            }
        )
    titles = {
        "leaf": "leaf under attacks on the leaf",
        "leaf_under": "leaf under attacks on superclasses",
        "above": "superclasses under attacks on themselves",
        "above_under": "superclasses under attacks on the leaf",
    }
    return [*compared(flat, titles), ""]


def taken(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What AutoAttack takes beyond PGD-20."""
    flat = [
        {"method": row["method"], **{kind: statistics.mean(row[kind].values()) for kind in ("pgd-20", "both")}}
        for row in rows
    ]
    titles = {"pgd-20": "mean of levels, right before and under PGD-20", "both": "and under AutoAttack fast"}
    return [*compared(flat, titles), ""]


if __name__ == "__main__":
    table()
