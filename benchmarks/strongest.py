"""Does the strongest attack change the tables? AutoAttack at every level of the five trees against PGD-20.

    python benchmarks/strongest.py run --shard 0/2 &   python benchmarks/strongest.py run --shard 1/2
    python benchmarks/strongest.py table               # strongest.json and strongest.md

Hardens the models of quickstart_ablation.py again (the same recipes and seeds; they stay in benchmarks/runs/models).
Every model meets PGD-20 on the margin and AutoAttack `fast` (APGD on cross-entropy, then aimed at nine wrong classes)
at each of the 12 levels, and AutoAttack `standard` at the leaf, on the same 131 drawings as in the ablation, another
subset for each seed."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pages import interval, put
from provenance import provenance
from quickstart_ablation import ATTACK, IMAGES, SEEDS, THREAT, settings

from robustree.attacks import AutoAttack
from robustree.auditing.audit import Subject, audit
from robustree.auditing.plan import LevelAttack, Plan
from robustree.auditing.rows import read_rows
from robustree.checkpoint import MARKER, load_checkpoint
from robustree.data import emoji
from robustree.models import load
from robustree.taxonomy import Forest
from robustree.taxonomy.tree import Tree
from robustree.training import harden
from robustree.tree_model import TreeModel, build_tree_model
from robustree.writing import write_whole

HERE = Path(__file__).parent
RUNS, MODELS = HERE / "runs" / "strongest", HERE / "runs" / "models"
SIDES = ("pgd-20", "both")
METHODS = ("plain", "tecoa", "pmg_aft", "fare", "agft", "hrft_5trees")
PGD20, FAST = LevelAttack(ATTACK), LevelAttack(AutoAttack(version="fast"), None)
STANDARD = LevelAttack(AutoAttack(version="standard"), None)


def opened(name: str, seed: int, forest: Forest) -> TreeModel:
    """A method's model over the forest, hardened unless it was before."""
    model, data = load("nano"), emoji()
    setting = next(setting for setting in settings() if setting.name == name)
    if setting.recipe is None:
        images = data.audit(model.image_encoder.preprocessing.resolution).subset(64, seed=seed)
        return build_tree_model(model, forest, images=images.pixels[:]).requires_grad_(False)
    place = MODELS / f"{name}-{seed}"
    if not (place / MARKER).exists():
        harden(model, data, data.forest(setting.trees), replace(setting.recipe, seed=seed), place)
    return load_checkpoint(place, forest=forest).tree_model.requires_grad_(False)


def run(shard: str) -> None:
    """Harden and audit what is missing; rows stay in benchmarks/runs/strongest."""
    index, count = map(int, shard.split("/"))
    data = emoji()
    forest = data.forest(None)
    jobs = [(name, seed) for seed in SEEDS for name in METHODS]
    for name, seed in jobs[index::count]:
        if (name, seed) in known() or finished(name, seed, forest):
            continue
        started = time.process_time()
        images = data.audit(load("nano").image_encoder.preprocessing.resolution).subset(IMAGES, seed=seed)
        for where, trees, attacks in (("levels", forest, (PGD20, FAST)), ("leaf", forest.select([]), (STANDARD,))):
            plan = Plan(threat=THREAT, attacks=attacks, all_levels=None, stop=True, seed=seed)
            subject = Subject(name, opened(name, seed, trees))
            place = RUNS / where / f"{name}-{seed}"
            audit([subject], images, trees, plan, place, command="python benchmarks/strongest.py run")
        print(f"{name} {seed}: {time.process_time() - started:.0f} CPU seconds", flush=True)


def known() -> dict[tuple[str, int], dict[str, Any]]:
    """The figures of the committed table, by method and seed."""
    table = HERE / "strongest.json"
    rows = json.loads(table.read_text(encoding="utf-8"))["rows"] if table.exists() else []
    return {(row["method"], row["seed"]): row for row in rows}


def finished(name: str, seed: int, forest: Forest) -> bool:
    """Whether all rows of a model are there."""
    places = [RUNS / where / f"{name}-{seed}" for where in ("levels", "leaf")]
    wanted = IMAGES * (1 + 2 * len(forest.cuts())), IMAGES * 2
    return all(p.is_dir() and len(list(read_rows(p))) == n for p, n in zip(places, wanted, strict=True))


def robust(rows: Sequence[dict[str, Any]], forest: Forest, attacks: Sequence[str]) -> dict[str, list[bool]]:
    """For each level, whether each image is right before and under all of these attacks on that level.

    Raises:
        ValueError: rows are missing.
    """
    standing: dict[str, dict[str, bool]] = {cut.label: {} for cut in forest.cuts()}
    met = dict.fromkeys(standing, 0)
    for row in rows:
        for cut in forest.cuts():
            if row["attack"] == "clean" or (row["attack"] in attacks and row["attacked"] == cut.label):
                right = row["direct"][cut.label] == cut.of_leaf[row["leaf"]]
                standing[cut.label][row["image"]] = standing[cut.label].get(row["image"], True) and right
                met[cut.label] += 1
    short = [label for label, count in met.items() if count != IMAGES * (1 + len(attacks))]
    if short:
        raise ValueError(f"rows of {', '.join(attacks)} at {', '.join(short)} are missing: let `run` end first.")
    return {label: list(images.values()) for label, images in standing.items()}


def any_level(levels: dict[str, list[bool]], tree: Tree) -> float:
    """The share of images that are right at the leaf and at every level of a tree."""
    own = [held for label, held in levels.items() if label == "leaf" or label.startswith(f"{tree.name}/")]
    return statistics.mean(all(right) for right in zip(*own, strict=True))


def figures(name: str, seed: int, forest: Forest) -> dict[str, Any]:
    """Robust accuracies of one model."""
    rows, leaf = list(read_rows(RUNS / "levels" / f"{name}-{seed}")), list(read_rows(RUNS / "leaf" / f"{name}-{seed}"))
    sides = {
        "pgd-20": robust(rows, forest, [PGD20.name]),
        "autoattack-fast": robust(rows, forest, [FAST.name]),
        "both": robust(rows, forest, [PGD20.name, FAST.name]),
    }
    found: dict[str, Any] = {"method": name, "seed": seed}
    for side, levels in sides.items():
        values = {label: statistics.mean(held) for label, held in levels.items()}
        every = statistics.mean(any_level(levels, tree) for tree in forest.trees)
        found[side] = {"levels_mean": statistics.mean(values.values()), "any_level_mean": every, "levels": values}
    standard = robust(leaf, forest.select([]), [STANDARD.name])["leaf"]
    found["autoattack-standard"] = {"leaf": statistics.mean(standard)}
    broken = [row.get("broken_by") for row in [*rows, *leaf] if row.get("broken_by")]
    found["broken_by"] = {stage: broken.count(stage) for stage in sorted(set(broken))}
    return found


def table() -> None:
    """Figures and a Markdown table from the rows of the seeds for which every model is there."""
    forest = emoji().forest(None)
    found = known() | {
        (name, seed): figures(name, seed, forest) for name in METHODS for seed in SEEDS if finished(name, seed, forest)
    }
    seeds = [seed for seed in SEEDS if all((name, seed) in found for name in METHODS)]
    rows = {name: [found[name, seed] for seed in seeds] for name in METHODS}

    def cell(name: str, side: str, what: str) -> str:
        values = [100 * row[side][what] for row in rows[name]]
        mean, half = interval(values) if len(values) > 2 else (statistics.mean(values), None)
        return f"{mean:.1f}" if half is None else f"{mean:.1f} ± {half:.1f}"

    lines = []
    for name in METHODS:
        mean = {side: statistics.mean(row[side]["levels_mean"] for row in rows[name]) for side in ("pgd-20", "both")}
        leaf = (f"{100 * statistics.mean(row[side]['levels']['leaf'] for row in rows[name]):.1f}" for side in SIDES)
        cells = [name, *(cell(name, side, "levels_mean") for side in SIDES)]
        cells.append(f"{100 * (mean['pgd-20'] - mean['both']):.1f}")
        cells += [cell(name, side, "any_level_mean") for side in SIDES]
        cells += [*leaf, cell(name, "autoattack-standard", "leaf")]
        lines.append(f"| {' | '.join(cells)} |")
    content = {
        "rows": [row for own in rows.values() for row in own],
        "protocol": __doc__,
        "images": IMAGES,
        "seeds": seeds,
        **provenance("python benchmarks/strongest.py run"),
    }
    write_whole(HERE / "strongest.json", json.dumps(content, indent=1) + "\n")
    head = (
        "| method | mean of 12 levels: PGD-20 | both | fall | every level of a tree: PGD-20 | both "
        "| leaf: PGD-20 | both | standard |\n|---|---|---|---|---|---|---|---|---|"
    )
    print("\n".join([head, *lines]))
    put(HERE / "strongest.md", "\n".join([head, *lines]) + "\n", "<!-- table -->\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--shard", default="0/1")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run(options.shard) if options.what == "run" else table()
