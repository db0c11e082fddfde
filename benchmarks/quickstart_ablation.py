"""Which part of hierarchical hardening carries the gain? The paper's component and perturbation tables on the
embedded drawings.

    python benchmarks/quickstart_ablation.py run --shard 0/2 &      # one process a core; finished runs are skipped
    python benchmarks/quickstart_ablation.py run --shard 1/2
    python benchmarks/quickstart_ablation.py table                  # writes quickstart_ablation.json and .md
    python benchmarks/quickstart_ablation.py sweep                  # the validation split; chose the defaults

Every run hardens the built-in model with the same images, steps, batch and eps and is audited by PGD-20 on the
margin, aimed at each of the 12 levels of the five trees in turn and scored at that level (direct prompts, the head
that was trained). Held-out artists only in `run`; training artists' validation drawings only in `sweep`."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pages import interval, put, spread
from provenance import provenance

from robustree.attacks import PGD
from robustree.auditing.audit import Subject, audit
from robustree.auditing.plan import LevelAttack, Plan
from robustree.auditing.rows import read_rows
from robustree.data import emoji
from robustree.geometry import Euclidean, Poincare, Sphere
from robustree.methods import Hierarchical
from robustree.models import load
from robustree.reproducing import EMBEDDED, TABLES
from robustree.taxonomy import Cut, Forest
from robustree.training import Recipe, harden, recipe_record
from robustree.tree_model import build_tree_model
from robustree.writing import write_whole

HERE = Path(__file__).parent
RUNS = HERE / "runs"
SEEDS = (0, 1, 2)
IMAGES = 131  # of the 524 held-out drawings, another stratified subset for each seed
ATTACK = PGD(steps=20, step_size=0.25)
TREES = ("unicode", "wordnet", "place", "size", "words")
BASE = EMBEDDED.base
THREAT = BASE.threat
FLAT = {candidate.name: EMBEDDED.recipe(candidate) for candidate in TABLES["main"].candidates}
OPEN, CLOSE = "<!-- table: written by the script -->\n", "<!-- end of table -->"
COLUMNS = (
    "clean_leaf",
    "clean_levels_mean",
    "robust_leaf",
    "robust_levels_mean",
    "any_level_mean",
    "robust_wordnet_mean",
)
PICTURE = {
    "robust_levels_mean": "robust accuracy, mean of the 12 levels (%)",
    "any_level_mean": "robust at every level of a tree, mean of 5 trees (%)",
}
HRFT = replace(BASE, method=Hierarchical(), space=Poincare(curvature=1.0))


@dataclass(frozen=True)
class Setting:
    """One row of the table: a recipe (None: the plain model) and the trees it trains on."""

    name: str
    recipe: Recipe | None
    trees: tuple[str, ...] = ("wordnet",)
    note: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


def part(name: str, note: str, **changes: Any) -> Setting:
    """HRFT with some options of the method changed."""
    return Setting(name, replace(HRFT, method=replace(HRFT.method, **changes)), note=note)


def settings() -> tuple[Setting, ...]:
    return (
        Setting("plain", None, note="the built-in model as it ships"),
        Setting("tecoa", FLAT["tecoa"], note="leaf cross-entropy"),
        Setting("pmg_aft", FLAT["pmg-aft"], note="TeCoA and two divergences"),
        Setting("fare", FLAT["fare"], note="embedding shift, no labels"),
        Setting("agft", FLAT["agft"], note="frozen soft labels"),
        Setting("hrft", HRFT, note="all parts, one tree (WordNet)"),
        Setting("hrft_5trees", HRFT, TREES, note="all parts, five trees"),
        part("hrft-levels", "leaf level only in the hyperbolic head", parents="off"),
        part("hrft-vic", "no bound on image-text distance", vic=0.0),
        part("hrft-gap", "no norm order of labels and images", gap_label=0.0, gap_image=0.0),
        part("hrft-hnsa", "negatives of the own level only", negatives="none"),
        part("hrft-universal+leaf", "the attack aims at the leaf only", perturbation="leaf"),
        Setting("hrft-hyperbolic+euclidean", replace(HRFT, space=Euclidean()), note="Euclidean distance"),
        Setting(
            "hrft-hyperbolic+cosine",
            replace(HRFT, space=Sphere(), method=replace(HRFT.method, gap_label=0.0, gap_image=0.0, vic=0.0)),
            note="the same levels in CLIP's cosine head",
        ),
        part("hrft-direct+recursive", "averages (HypAvg) instead of single images", parents="recursive"),
        part("hrft-universal+per_level", "one attack a level", perturbation="per_level"),
        part("hrft-hnsa+lower", "negatives of the level below only", negatives="lower"),
        part("hrft-hnsa+upper", "negatives of the level above only", negatives="upper"),
        part("hrft-text_training", "text projection frozen", train_text=False),
        part("hrft-text_perturbation", "texts stay put in the attack", text_eps=0.0),
        part("hrft-direct+both", "single images and averages", parents="both"),
    )


def run(setting: Setting, seed: int, *, split: str, images: int, attack: PGD) -> dict[str, Any]:
    """Harden and audit once; the figures of one row."""
    started = time.monotonic()
    data = emoji(split)
    forest = data.forest(None)
    model = load("nano")
    size = model.image_encoder.preprocessing.resolution
    audited = data.audit(size).subset(images, seed=seed)
    logs: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        if setting.recipe is None:
            tree_model = build_tree_model(model, forest, images=audited.pixels[:64])
            tree_model.requires_grad_(False)
        else:
            recipe = replace(setting.recipe, seed=seed)
            trained = harden(
                model,
                data,
                forest.select(setting.trees),
                recipe,
                Path(folder) / "model",
                save_every=10**9,
                report=lambda progress: logs.update(progress.logs),
            )
            tree_model = trained.over(forest, model.text_features, recipe.template)
        seconds = time.monotonic() - started
        plan = Plan(threat=THREAT, attacks=(LevelAttack(attack),), all_levels=None, stop=True, seed=seed)
        audit([Subject(setting.name, tree_model)], audited, forest, plan, Path(folder) / "audit", command="")
        figures = score(read_rows(Path(folder) / "audit"), forest)
    return {
        "method": setting.name,
        "seed": seed,
        **figures,
        "seconds": round(seconds, 1),
        "audit_seconds": round(time.monotonic() - started - seconds, 1),
        "final_logs": {name: round(value, 5) for name, value in logs.items()},
        "recipe": recipe_record(replace(setting.recipe, seed=seed)) if setting.recipe else None,
        "trees": list(setting.trees) if setting.recipe else [],
        "split": split,
        "images": images,
        "attack": vars(attack),
    }


def score(rows: Iterable[Mapping[str, Any]], forest: Forest) -> dict[str, Any]:
    """Accuracies in [0, 1] from audit rows: an image is robust at a level if right before and under the attack on
    that level."""
    right: dict[str, dict[str, bool]] = {}
    robust: dict[str, dict[str, bool]] = {}
    leaves: dict[str, int] = {}
    for row in rows:
        leaves[row["image"]] = row["leaf"]
        for cut in forest.cuts():
            hit = row["direct"][cut.label] == cut.of_leaf[row["leaf"]]
            if row["attack"] == "clean":
                right.setdefault(cut.label, {})[row["image"]] = hit
            elif row["attacked"] == cut.label:
                robust.setdefault(cut.label, {})[row["image"]] = hit
    for label, hits in robust.items():
        robust[label] = {image: hit and right[label][image] for image, hit in hits.items()}
    images = list(right["leaf"])

    def balanced(hits: Mapping[str, Mapping[str, bool]]) -> float:
        """The mean over levels of the mean over a level's nodes: there answering the largest node gains nothing."""
        found = []
        for cut in forest.cuts():
            nodes: dict[int, list[bool]] = {}
            for image, hit in hits[cut.label].items():
                nodes.setdefault(cut.of_leaf[leaves[image]], []).append(hit)
            found.append(statistics.mean(statistics.mean(own) for own in nodes.values()))
        return statistics.mean(found)

    def largest(cut: Cut) -> float:
        """What always giving the largest node's name keeps under any attack."""
        return Counter(cut.of_leaf[leaf] for leaf in leaves.values()).most_common(1)[0][1] / len(leaves)

    def any_level(labels: list[str]) -> float:
        return statistics.mean(all(robust[label][image] for label in labels) for image in images)

    clean = {label: statistics.mean(hits.values()) for label, hits in right.items()}
    held = {label: statistics.mean(hits.values()) for label, hits in robust.items()}
    trees = {tree.name: ["leaf", *(c.label for c in forest.cuts() if c.tree == tree.name)] for tree in forest.trees}
    return {
        "clean_leaf": clean["leaf"],
        "clean_levels_mean": statistics.mean(clean.values()),
        "robust_leaf": held["leaf"],
        "robust_levels_mean": statistics.mean(held.values()),
        "largest": {cut.label: largest(cut) for cut in forest.cuts()},
        "clean_balanced_mean": balanced(right),
        "robust_balanced_mean": balanced(robust),
        "any_level_mean": statistics.mean(any_level(labels) for labels in trees.values()),
        "any_level_all": any_level(list(robust)),
        "robust_wordnet_mean": statistics.mean(held[label] for label in trees["wordnet"]),
        "clean": clean,
        "robust": held,
    }


def finished() -> list[Mapping[str, Any]]:
    """The rows of the committed table and of the runs since, one for each method and seed."""
    table = HERE / "quickstart_ablation.json"
    rows = json.loads(table.read_text(encoding="utf-8"))["rows"] if table.exists() else []
    rows += [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RUNS.glob("test-*.json"))]
    return list({(row["method"], row["seed"]): row for row in rows}.values())


def execute(shard: str, seeds: tuple[int, ...]) -> None:
    index, count = (int(number) for number in shard.split("/"))
    first = [setting for setting in settings() if "-" not in setting.name]
    rest = [setting for setting in settings() if "-" in setting.name]
    jobs = [(setting, seed) for seed in seeds for setting in first] + [
        (setting, seed) for setting in rest for seed in seeds
    ]
    for setting, seed in jobs[index::count]:
        if any((row["method"], row["seed"]) == (setting.name, seed) for row in finished()):
            continue
        figures = run(setting, seed, split="test", images=IMAGES, attack=ATTACK)
        write_whole(RUNS / f"test-{setting.name}-{seed}.json", json.dumps(figures, indent=1))
        print(describe(figures), flush=True)


def describe(row: Mapping[str, Any]) -> str:
    figures = " ".join(f"{name} {100 * row[name]:5.1f}" for name in COLUMNS)
    return f"{row['method']:28} {row['seed']} {figures}  {row['seconds']:.0f} s + {row['audit_seconds']:.0f} s"


def table() -> None:
    """Aggregate the finished runs."""
    order = [setting.name for setting in settings()]
    notes = {setting.name: setting.note for setting in settings()}
    rows = sorted(finished(), key=lambda row: (order.index(row["method"]), row["seed"]))
    content = {
        "rows": rows,
        "protocol": {
            "model": "nano (see src/robustree/models/nano/training.json)",
            "data": f"{IMAGES} of the 524 drawings of the two held-out artists, a stratified subset for each seed",
            "eps": "4/255 linf at 48 px",
            "training": recipe_record(BASE),
            "evaluation": "PGD-20, step eps/4, random start, margin of the attacked level, best; direct prompts",
            "levels": "the leaf and the 11 levels of the five trees; any_level_mean: mean over trees",
            "intervals": "95 % t intervals over seeds",
            "tuning": "benchmarks/hierarchical_sweep.json, on the validation drawings of the training artists",
        },
        **provenance("python benchmarks/quickstart_ablation.py run --shard 0/2 (and 1/2), then table"),
    }
    write_whole(HERE / "quickstart_ablation.json", json.dumps(content, indent=1) + "\n")
    titles = " | ".join(name.replace("_", " ") for name in COLUMNS)
    lines = [f"| method | what | {titles} | s |", "|---|---|" + "---|" * (len(COLUMNS) + 1)]
    for name in order:
        own = [row for row in rows if row["method"] == name]
        if len(own) < len(SEEDS):
            continue
        cells = [spread([row[column] for row in own]) for column in COLUMNS]
        seconds = statistics.mean(row["seconds"] for row in own)
        lines.append(f"| {name} | {notes[name]} | " + " | ".join(cells) + f" | {seconds:.0f} |")
    lines += ["", "Paired differences, same seed and images, in points:", "", *paired(rows)]
    put(HERE / "quickstart_ablation.md", "\n".join(lines) + "\n", OPEN, CLOSE)
    print("\n".join(lines))
    measured = [name for name in order if sum(row["method"] == name for row in rows) >= len(SEEDS)]
    picture(measured, rows, PICTURE, HERE / "quickstart_ablation.svg")


def paired(rows: list[Mapping[str, Any]]) -> list[str]:
    """A Markdown table of HRFT on five trees minus each flat method, and of HRFT minus the same without a part."""
    found = {(row["method"], row["seed"]): row for row in rows}
    flat = [("hrft_5trees", name) for name in ("tecoa", "pmg_aft", "fare", "agft")]
    parts = [("hrft", setting.name) for setting in settings() if setting.name.startswith("hrft-")]
    columns = ("clean_levels_mean", "robust_leaf", "robust_levels_mean", "any_level_mean")
    lines = ["| difference | " + " | ".join(name.replace("_", " ") for name in columns) + " |", "|---|---|---|---|---|"]
    for one, other in flat + parts:
        seeds = [seed for seed in SEEDS if (one, seed) in found and (other, seed) in found]
        if len(seeds) < 3:
            continue
        cells = [spread([found[one, s][column] - found[other, s][column] for s in seeds], "+") for column in columns]
        lines.append(f"| {one} − {other} | " + " | ".join(cells) + " |")
    return lines


def picture(names: list[str], rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str], file: Path) -> None:
    """An SVG of some figures of every row, each with its interval and its seeds."""
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "robustree"
    size = (5.5 * len(titles), 0.36 * len(names) + 1.2)
    figure, axes = pyplot.subplots(1, len(titles), figsize=size, sharey=True, layout="constrained")
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        for place, name in enumerate(names):
            values = [100 * row[column] for row in rows if row["method"] == name]
            mean, half = interval(values)
            colour = "#0b6e99" if name.startswith("hrft") else "#8a8580"
            axis.errorbar(mean, place, xerr=half, fmt="o", color=colour, capsize=3, markersize=6)
            axis.plot(values, [place] * len(values), "|", color=colour, markersize=9, alpha=0.6)
        axis.set_title(title, fontsize=10, loc="left")
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "run":
        execute(options.shard, tuple(options.seeds))
    else:
        table()


if __name__ == "__main__":
    main()
