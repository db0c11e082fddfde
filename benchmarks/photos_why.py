"""Why is PMG-AFT ahead in the mean over levels on photographs? Its terms one at a time, the same terms in the
hierarchical method, and other learning rates.

    python benchmarks/photos_why.py run --data tiny_imagenet=PATH --shard 0/2  # finished runs are kept
    python benchmarks/photos_why.py table                              # photos_why.json, a table of photos.md

Models and hardening are those of photos.py at eps 2/255. Every run is audited by PGD-20 on the margin of each of the 18
levels of the five trees, on training photographs that no run trains on: nothing here has seen the validation file."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from pages import put
from photos import BASE, HRFT, RUNS, Photographs, Setting, files, opened, robustness, split_classes
from provenance import provenance
from torch import Tensor

from robustree.methods import PMGAFT, Hierarchical
from robustree.methods.method import Adversarial, Context
from robustree.training import recipe_record
from robustree.tree_model import Scores
from robustree.writing import write_whole

EPS, IMAGES, SEEDS = 2, 300, (0, 1)
COLUMNS = {
    "clean_levels_mean": "clean: mean of levels",
    "robust_leaf": "robust: leaf",
    "robust_levels_mean": "robust: mean of levels",
    "robust_balanced_mean": "robust: mean, balanced",
    "any_level_mean": "right at every level of a tree",
}


@dataclass(frozen=True, kw_only=True)
class Guided(Hierarchical):
    """The hierarchical loss and PMG-AFT's two divergences, each the mean over all levels of all trees."""

    general: float = 1.0
    clean: float = 1.0

    def loss(self, context: Context, adversarial: Sequence[Adversarial]) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = super().loss(context, adversarial)
        cuts = context.forest.cuts()
        attacked = [F.log_softmax(adversarial[0].scores.at(cut), dim=1) for cut in cuts]

        def divergence(scores: Scores) -> Tensor:
            others = [F.log_softmax(scores.at(cut), dim=1) for cut in cuts]
            apart = [
                F.kl_div(own, other, log_target=True, reduction="batchmean")
                for own, other in zip(attacked, others, strict=True)
            ]
            return torch.stack(apart).mean()

        if self.general:
            terms["general"] = divergence(context.frozen(adversarial[0].images))
            loss = loss + self.general * terms["general"]
        if self.clean:
            terms["clean"] = divergence(context.tuned(context.images))
            loss = loss + self.clean * terms["clean"]
        return loss, {name: value.detach() for name, value in terms.items()}


def guided(name: str, lr: float, **weights: float) -> Setting:
    return Setting(f"{name}, rate {lr:g}", replace(HRFT, method=Guided(**weights), lr=lr), None)


def settings() -> tuple[Setting, ...]:
    """What is tried, each with the seeds 0 and 1."""
    parts = {"tecoa": (0.0, 0.0), "general": (1.0, 0.0), "clean": (0.0, 1.0), "both": (1.0, 1.0)}

    def flat(name: str, lr: float, general: float, clean: float) -> Setting:
        return Setting(name, replace(BASE, method=PMGAFT(general=general, clean=clean), lr=lr))

    def trees(lr: float) -> Setting:
        return Setting(f"hrft_5trees, rate {lr:g}", replace(HRFT, lr=lr), None)

    found = [flat(f"pmg_aft: {name}", 2e-3, *weights) for name, weights in parts.items()]
    found += [Setting("hrft_5trees", replace(HRFT, lr=1e-3), None), trees(2e-3), trees(4e-3)]
    found += [flat(f"tecoa, rate {lr:g}", lr, 0.0, 0.0) for lr in (1e-3, 4e-3)]
    found += [flat("pmg_aft, rate 0.004", 4e-3, 1.0, 1.0)]
    found += [guided("hrft_5trees: clean", 2e-3, general=0.0), guided("hrft_5trees: both", 2e-3)]
    return tuple(found)


def run(data: str, shard: str) -> None:
    """Harden and audit what is missing."""
    index, count = map(int, shard.split("/"))
    whole, _, validation, _ = files(data)
    jobs = [(setting, seed) for setting in settings() for seed in SEEDS]
    for setting, seed in jobs[index::count]:
        place = RUNS / "why" / f"{setting.name}-{seed}".replace(" ", "_").replace(":", "").replace(",", "")
        if (place / "figures.json").exists():
            continue
        started = time.process_time()
        over = opened(setting, EPS, seed, data, place / "model")
        part = split_classes(whole, seed)[0]
        images = Photographs.of(validation, whole, part).audited(IMAGES, seed)
        figures = robustness("model", over(part), images, EPS, seed, place / "audit", "photos_why.py run")
        row = {"setting": setting.name, "seed": seed, **figures}
        row["seconds"] = round(time.process_time() - started)
        write_whole(place / "figures.json", json.dumps(row))
        said = " ".join(f"{column} {100 * row[column]:.1f}" for column in COLUMNS)
        print(f"{setting.name} {seed}: {said}, {row['seconds']} s", flush=True)


def table() -> None:
    """photos_why.json, and its table in photos.md."""
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((RUNS / "why").glob("*/figures.json"))]
    lines = [f"| training photographs held out | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for setting in settings():
        own = sorted((row for row in rows if row["setting"] == setting.name), key=lambda row: row["seed"])
        if [row["seed"] for row in own] != list(SEEDS):
            raise ValueError(f"{setting.name!r} has {len(own)} of {len(SEEDS)} runs: let `run` end first.")
        cells = [", ".join(f"{100 * row[column]:.1f}" for row in own) for column in COLUMNS]
        lines.append(f"| {setting.name} | {' | '.join(cells)} |")
    content = {
        "rows": rows,
        "protocol": __doc__,
        "images": IMAGES,
        "eps": f"{EPS}/255",
        "recipes": {setting.name: recipe_record(setting.recipe) for setting in settings() if setting.recipe},
        **provenance(
            "python benchmarks/photos_why.py run --data tiny_imagenet=PATH; python benchmarks/photos_why.py table"
        ),
    }
    write_whole(Path(__file__).with_suffix(".json"), json.dumps(content, indent=1) + "\n")
    put(Path(__file__).with_name("photos.md"), "\n".join(lines) + "\n", "<!-- why -->\n")
    print("\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--data", help="tiny_imagenet=PATH")
    parser.add_argument("--shard", default="0/1")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "run":
        run(options.data, options.shard)
    else:
        table()
