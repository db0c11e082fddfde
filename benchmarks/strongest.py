"""Does the strongest attack change the tables? AutoAttack at every level of the five trees against PGD-20.

    python benchmarks/strongest.py run --shard 0/2 &   python benchmarks/strongest.py run --shard 1/2
    python benchmarks/strongest.py table               # strongest.json and strongest.md

Hardens the models of quickstart_ablation.py again (seed 0, the same recipes; they stay in benchmarks/runs/models).
Every model meets PGD-20 on the margin and AutoAttack `fast` (APGD on cross-entropy, then aimed at nine wrong classes)
at each of the 12 levels, and AutoAttack `standard` at the leaf, on the same 131 drawings as in the ablation."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from quickstart_ablation import ATTACK, IMAGES, THREAT, settings

import robustree
from robustree.attacks import AutoAttack
from robustree.auditing.audit import Subject, audit
from robustree.auditing.plan import LevelAttack, Plan
from robustree.auditing.rows import read_rows
from robustree.auditing.statistics import wilson
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
METHODS = ("plain", "tecoa", "pmg_aft", "fare", "agft", "hrft_5trees")
SEED = 0
PGD20, FAST = LevelAttack(ATTACK), LevelAttack(AutoAttack(version="fast"), None)
STANDARD = LevelAttack(AutoAttack(version="standard"), None)


def opened(name: str, forest: Forest) -> TreeModel:
    """A method's model over the forest, hardened unless it was before."""
    model, data = load("nano"), emoji()
    setting = next(setting for setting in settings() if setting.name == name)
    if setting.recipe is None:
        images = data.audit(model.image_encoder.preprocessing.resolution).subset(64, seed=SEED)
        return build_tree_model(model, forest, images=images.pixels[:]).requires_grad_(False)
    if not (MODELS / name / MARKER).exists():
        harden(model, data, data.forest(setting.trees), setting.recipe, MODELS / name)
    return load_checkpoint(MODELS / name, forest=forest).tree_model.requires_grad_(False)


def run(shard: str) -> None:
    """Harden and audit what is missing; rows stay in benchmarks/runs/strongest."""
    index, count = map(int, shard.split("/"))
    data = emoji()
    forest = data.forest(None)
    images = data.audit(load("nano").image_encoder.preprocessing.resolution).subset(IMAGES, seed=SEED)
    for name in METHODS[index::count]:
        started = time.process_time()
        for where, trees, attacks in (("levels", forest, (PGD20, FAST)), ("leaf", forest.select([]), (STANDARD,))):
            plan = Plan(threat=THREAT, attacks=attacks, all_levels=None, stop=True, seed=SEED)
            subject = Subject(name, opened(name, trees))
            audit([subject], images, trees, plan, RUNS / where / name, command="python benchmarks/strongest.py run")
        print(f"{name}: {time.process_time() - started:.0f} CPU seconds", flush=True)


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


def table() -> None:
    """Figures and a Markdown table from the rows."""
    forest = emoji().forest(None)
    found, lines = [], []
    for name in METHODS:
        rows, leaf = read_rows(RUNS / "levels" / name), read_rows(RUNS / "leaf" / name)
        sides = {
            "pgd-20": robust(rows, forest, [PGD20.name]),
            "autoattack-fast": robust(rows, forest, [FAST.name]),
            "both": robust(rows, forest, [PGD20.name, FAST.name]),
        }
        figures: dict[str, Any] = {"method": name}
        for side, levels in sides.items():
            values = {label: statistics.mean(held) for label, held in levels.items()}
            every = statistics.mean(any_level(levels, tree) for tree in forest.trees)
            figures[side] = {"levels_mean": statistics.mean(values.values()), "any_level_mean": every, "levels": values}
        standard = robust(leaf, forest.select([]), [STANDARD.name])["leaf"]
        figures["autoattack-standard"] = {"leaf": statistics.mean(standard)}
        broken = [row.get("broken_by") for row in [*rows, *leaf] if row.get("broken_by")]
        figures["broken_by"] = {stage: broken.count(stage) for stage in sorted(set(broken))}
        figures["leaf_interval"] = wilson(sum(standard), len(standard))
        found.append(figures)
        pgd, fast = figures["pgd-20"]["levels_mean"], figures["autoattack-fast"]["levels_mean"]
        worst = max(
            sides["pgd-20"], key=lambda label: figures["pgd-20"]["levels"][label] - figures["both"]["levels"][label]
        )
        fall = figures["pgd-20"]["levels"][worst] - figures["both"]["levels"][worst]
        lines.append(
            f"| {name} | {100 * pgd:.2f} | {100 * fast:.2f} | {100 * figures['both']['levels_mean']:.2f} "
            f"| {100 * (pgd - figures['both']['levels_mean']):.2f} | {worst} {100 * fall:.1f} "
            f"| {100 * figures['pgd-20']['any_level_mean']:.1f} | {100 * figures['both']['any_level_mean']:.1f} "
            f"| {100 * figures['pgd-20']['levels']['leaf']:.1f} "
            f"| {100 * figures['autoattack-fast']['levels']['leaf']:.1f} "
            f"| {100 * figures['autoattack-standard']['leaf']:.1f} |"
        )
    content = {
        "rows": found,
        "protocol": __doc__,
        "images": IMAGES,
        "seed": SEED,
        "versions": {"robustree": robustree.__version__, "torch": torch.__version__},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, one thread a run, no GPU",
        "command": "python benchmarks/strongest.py run",
    }
    write_whole(HERE / "strongest.json", json.dumps(content, indent=1) + "\n")
    head = (
        "| method | PGD-20, mean of 12 levels | AutoAttack fast | both | fall | largest fall at a level "
        "| every level of a tree: PGD-20 | both | leaf: PGD-20 | leaf: fast | leaf: standard |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|"
    )
    print("\n".join([head, *lines]))
    page = HERE / "strongest.md"
    mark = "<!-- table -->\n"
    before, _, rest = page.read_text(encoding="utf-8").partition(mark) if page.exists() else ("", "", mark)
    write_whole(page, before + mark + "\n".join([head, *lines]) + "\n" + mark + rest.partition(mark)[2])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--shard", default="0/1")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run(options.shard) if options.what == "run" else table()
