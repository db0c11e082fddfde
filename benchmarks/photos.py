"""Which defence holds on photographs, at every level of five trees, and on classes that no hardening saw?

    python recipes/photographs.py --data tiny_imagenet=PATH --output benchmarks/runs/photos/plain --bf16
    python benchmarks/photos.py sweep --data tiny_imagenet=PATH            # learning rates, on training photographs
    python benchmarks/photos.py run --data tiny_imagenet=PATH --shard 0/2  # one process a core; finished runs are kept
    python benchmarks/photos.py ended --data tiny_imagenet=PATH            # where attacks land
    python benchmarks/photos.py strongest --data tiny_imagenet=PATH        # what AutoAttack takes
    python benchmarks/photos_table.py                                      # photos.json and photos.md

A small CLIP that was trained from nothing on 200 classes is hardened on 150 of them, others for each seed, and audited
on validation photographs of these and of the other 50, each over its own classes: PGD-20 on the margin, aimed at each
level of the five trees in turn and scored at that level. A second audit lets every attack run to its end, at the leaf
and the three levels of one tree, and a third adds AutoAttack `fast` there."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from provenance import provenance
from quickstart_ablation import ATTACK, score

from robustree.attacks import AutoAttack, Threat
from robustree.auditing.audit import Subject, audit
from robustree.auditing.plan import LevelAttack, Plan
from robustree.auditing.rows import read_rows
from robustree.checkpoint import MARKER, load_checkpoint
from robustree.data import AuditImages
from robustree.data.catalog import DataSet, open_data
from robustree.data.decoding import Decoded
from robustree.data.encoded import EncodedImages
from robustree.data.images import Augmented
from robustree.geometry import Poincare
from robustree.methods import AGFT, FARE, PMGAFT, Hierarchical, TeCoA
from robustree.models import load
from robustree.taxonomy import Forest
from robustree.training import Recipe, harden, recipe_record
from robustree.tree_model import TreeModel, build_tree_model
from robustree.writing import write_whole

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))
from photographs import validation_positions

HERE = Path(__file__).parent
RUNS = HERE / "runs" / "photos"
SIDE = 48
SEEDS = (0, 1, 2)
SEEN, SEEN_IMAGES, UNSEEN_IMAGES = 150, 150, 100
SECOND = {"ended": 100, "strongest": 50}
"""Photographs of the second and the third audit."""
BASE = Recipe(method=TeCoA(), steps=100, batch_size=64, lr=1e-3, precision="bf16")
HRFT = replace(BASE, method=Hierarchical(), space=Poincare(curvature=1.0))
FAST = LevelAttack(AutoAttack(version="fast"), None)
PGD20 = LevelAttack(ATTACK)
RATES = {
    "tecoa": (5e-4, 1e-3, 2e-3),
    "pmg_aft": (1e-3, 2e-3, 4e-3),
    "fare": (1e-3, 2e-3, 4e-3, 8e-3),
    "agft": (1e-3, 2e-3, 4e-3),
    "hrft": (5e-4, 1e-3, 2e-3),
}
"""1e-3 and 2e-3 for all, then on from the better of the two."""


@dataclass(frozen=True)
class Setting:
    """A row of the table: its recipe (None: the plain model) and the trees it trains on (None: all)."""

    name: str
    recipe: Recipe | None
    trees: tuple[str, ...] | None = ("wordnet",)


SETTINGS = (
    Setting("plain", None),
    Setting("tecoa", BASE),
    Setting("pmg_aft", replace(BASE, method=PMGAFT())),
    Setting("fare", replace(BASE, method=FARE())),
    Setting("agft", replace(BASE, method=AGFT(sharpness=1.0, softening=1.0))),
    Setting("hrft", HRFT),
    Setting("hrft_5trees", HRFT, None),
)


@dataclass(frozen=True)
class Photographs:
    """Photographs of some classes, labelled within a forest over these classes."""

    forest: Forest
    images: EncodedImages

    @classmethod
    def of(cls, images: EncodedImages, forest: Forest, part: Forest) -> Photographs:
        number = torch.full((forest.leaf_count,), -1)
        for new, name in enumerate(part.leaves):
            number[forest.leaves.index(name)] = new
        taken = images.take((number[images.leaves] >= 0).nonzero()[:, 0])
        return cls(part, replace(taken, leaves=number[taken.leaves]))

    def audited(self, count: int, seed: int) -> AuditImages:
        return AuditImages(Decoded(self.images, SIDE), self.images.leaves, self.images.ids).subset(count, seed=seed)


@lru_cache(maxsize=1)
def files(data: str) -> tuple[Forest, EncodedImages, EncodedImages, EncodedImages]:
    """All classes, and the photographs for training, validation and test."""
    opened = open_data(data)
    training, test = opened.training(SIDE), opened.audit(SIDE)
    if not isinstance(training, Augmented) or not isinstance(test.pixels, Decoded):
        raise ValueError(f"data is {data!r}; give the files of tiny_imagenet: tiny_imagenet=PATH.")
    whole = training.pixels.images
    held = torch.zeros(len(whole.leaves), dtype=torch.bool)
    held[validation_positions(whole.leaves)] = True
    train, validation = whole.take((~held).nonzero()[:, 0]), whole.take(held.nonzero()[:, 0])
    return opened.forest(None), train, validation, test.pixels.images


def split_classes(forest: Forest, seed: int) -> tuple[Forest, Forest]:
    """The classes to harden on, and those that hardening never sees."""
    order = torch.randperm(forest.leaf_count, generator=torch.Generator().manual_seed(seed)).tolist()
    names = [forest.leaves[leaf] for leaf in order]
    return forest.restrict(names[:SEEN]), forest.restrict(names[SEEN:])


def opened(setting: Setting, eps: int, seed: int, data: str, place: Path) -> Callable[[Forest], TreeModel]:
    """A setting's model over any forest, hardened unless it was before."""
    whole, train, _, _ = files(data)
    seen = Photographs.of(train, whole, split_classes(whole, seed)[0])
    model = load(str(RUNS / "plain"))
    if setting.recipe is None:
        sample = seen.audited(64, seed).pixels[:]
        return lambda forest: build_tree_model(model, forest, images=sample).requires_grad_(False)
    if not (place / MARKER).exists():
        training = DataSet(
            name="tiny_imagenet",
            about="photographs of some classes",
            forest=lambda trees: seen.forest.select(trees) if trees else seen.forest,
            training=lambda size: Augmented(Decoded(seen.images, size)),
            audit=lambda size: seen.audited(SEEN, seed),
        )
        recipe = replace(setting.recipe, threat=Threat(eps=eps / 255), seed=seed)
        harden(model, training, training.forest(setting.trees), recipe, place, save_every=10**9)
    return lambda forest: load_checkpoint(place, forest=forest).tree_model.requires_grad_(False)


def chosen(setting: Setting) -> Setting:
    """The setting at its method's best learning rate on validation photographs (photos_sweep.json)."""
    if setting.recipe is None:
        return setting
    rows = json.loads((HERE / "photos_sweep.json").read_text(encoding="utf-8"))["rows"]
    own = [row for row in rows if row["method"] == setting.name.removesuffix("_5trees")]
    best = max(own, key=lambda row: row["robust_levels_mean"])
    return replace(setting, recipe=replace(setting.recipe, lr=best["lr"]))


def robustness(
    name: str, model: TreeModel, images: AuditImages, eps: int, seed: int, place: Path, command: str
) -> dict[str, Any]:
    """The figures of a model under PGD-20 at every level of its forest."""
    plan = Plan(threat=Threat(eps=eps / 255), attacks=(PGD20,), all_levels=None, stop=True, seed=seed)
    audit([Subject(name, model)], images, model.forest, plan, place, command=f"python benchmarks/{command}")
    return score(read_rows(place), model.forest)


def sweep(data: str, eps: int, shard: str) -> None:
    """Each method at each learning rate on validation photographs, one seed, the WordNet tree."""
    index, count = map(int, shard.split("/"))
    whole, _, validation, _ = files(data)
    part = Photographs.of(validation, whole, split_classes(whole, 0)[0])
    forest, images = part.forest.select(["wordnet"]), part.audited(SEEN, 0)
    jobs = [(setting, lr) for setting in SETTINGS[1:6] for lr in RATES[setting.name]]
    for setting, lr in jobs[index::count]:
        place = RUNS / "sweep" / f"{setting.name}-{lr:g}"
        if (place / "figures.json").exists():
            continue
        tried = replace(setting, recipe=replace(setting.recipe, lr=lr))
        started = time.process_time()
        over = opened(tried, eps, 0, data, place / "model")
        figures = robustness(setting.name, over(forest), images, eps, 0, place, "photos.py sweep")
        row = {"method": setting.name, "lr": lr, "eps": eps} | figures
        write_whole(place / "figures.json", json.dumps(row))
        seconds = time.process_time() - started
        print(f"{setting.name} {lr:g}: {100 * figures['robust_levels_mean']:.1f}, {seconds:.0f} s", flush=True)
    rows = [json.loads(file.read_text()) for file in sorted((RUNS / "sweep").glob("*/figures.json"))]
    content = {"rows": rows, "protocol": sweep.__doc__, "images": SEEN, **about("sweep")}
    write_whole(HERE / "photos_sweep.json", json.dumps(content, indent=1) + "\n")


def missing(result: str, eps: int, seeds: Sequence[int], shard: str) -> Iterator[tuple[Setting, int, Path]]:
    """The runs of a shard without that result, and where each has its files."""
    index, count = map(int, shard.split("/"))
    for setting, seed in [(setting, seed) for seed in seeds for setting in SETTINGS][index::count]:
        place = RUNS / f"eps-{eps}" / f"{setting.name}-{seed}"
        if not (place / result).exists():
            yield setting, seed, place


def run(data: str, eps: int, seeds: Sequence[int], shard: str) -> None:
    """Harden and audit what is missing."""
    whole, _, _, test = files(data)
    for setting, seed, place in missing("figures.json", eps, seeds, shard):
        started = time.process_time()
        over = opened(chosen(setting), eps, seed, data, place / "model")
        figures: dict[str, Any] = {"method": setting.name, "seed": seed, "eps": eps}
        for name, part, images in zip(
            ("seen", "unseen"), split_classes(whole, seed), (SEEN_IMAGES, UNSEEN_IMAGES), strict=True
        ):
            photographs = Photographs.of(test, whole, part).audited(images, seed)
            at = place / name
            figures[name] = robustness(setting.name, over(part), photographs, eps, seed, at, "photos.py run")
        figures["seconds"] = round(time.process_time() - started)
        figures["recipe"] = recipe_record(chosen(setting).recipe) if setting.recipe else None
        write_whole(place / "figures.json", json.dumps(figures))
        robust = [f"{100 * figures[part]['robust_levels_mean']:.1f}" for part in ("seen", "unseen")]
        print(f"eps {eps} {setting.name} {seed}: {' '.join(robust)}, {figures['seconds']} s", flush=True)


def second(what: str, data: str, eps: int, seeds: Sequence[int], shard: str) -> None:
    """The second or third audit of the models that `run` left."""
    whole, _, _, test = files(data)
    attacks = (PGD20,) if what == "ended" else (PGD20, FAST)
    for setting, seed, place in missing(f"{what}.json", eps, seeds, shard):
        over = opened(chosen(setting), eps, seed, data, place / "model")
        part = split_classes(whole, seed)[0].select(["kind"])
        photographs = Photographs.of(test, whole, part).audited(SECOND[what], seed)
        plan = Plan(threat=Threat(eps=eps / 255), attacks=attacks, all_levels=None, seed=seed, stop=what != "ended")
        subject = Subject(setting.name, over(part))
        started = time.process_time()
        audit([subject], photographs, part, plan, place / what, command=f"python benchmarks/photos.py {what}")
        rows = list(read_rows(place / what))
        found = landing(rows, part) if what == "ended" else standing(rows, part)
        write_whole(place / f"{what}.json", json.dumps({"method": setting.name, "seed": seed, "eps": eps} | found))
        print(f"eps {eps} {setting.name} {seed}: {time.process_time() - started:.0f} s", flush=True)


def decided(rows: list[Mapping[str, Any]], forest: Forest) -> tuple[list[str], Callable[..., bool]]:
    """The images, and whether one is right at a level under an attack on a level."""
    right = {
        (row["image"], row["attack"], row["attacked"], cut.label): row["direct"][cut.label] == cut.of_leaf[row["leaf"]]
        for row in rows
        for cut in forest.cuts()
    }
    return sorted({row["image"] for row in rows}), lambda *key: right[key]


def landing(rows: list[Mapping[str, Any]], forest: Forest) -> dict[str, Any]:
    """Accuracy at each level under PGD-20 at each level."""
    labels, (images, right) = [cut.label for cut in forest.cuts()], decided(rows, forest)
    lands = {
        attacked: {
            label: statistics.mean(right(image, PGD20.name, attacked, label) for image in images) for label in labels
        }
        for attacked in labels
    }
    return {"transfer": lands}


def standing(rows: list[Mapping[str, Any]], forest: Forest) -> dict[str, Any]:
    """The share of images right before and under PGD-20 at each level, and under AutoAttack as well."""
    images, right = decided(rows, forest)

    def share(label: str, *attacks: str) -> float:
        return statistics.mean(
            right(image, "clean", "", label) and all(right(image, name, label, label) for name in attacks)
            for image in images
        )

    labels = [cut.label for cut in forest.cuts()]
    return {
        "pgd-20": {label: share(label, PGD20.name) for label in labels},
        "both": {label: share(label, PGD20.name, FAST.name) for label in labels},
    }


def about(command: str) -> dict[str, Any]:
    return provenance(f"python benchmarks/photos.py {command} --data tiny_imagenet=PATH")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sweep", "run", "ended", "strongest"))
    parser.add_argument("--data", required=True, help="tiny_imagenet=PATH")
    parser.add_argument("--eps", type=int, default=1, help="in units of 1/255")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--shard", default="0/1")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "sweep":
        sweep(options.data, options.eps, options.shard)
    elif options.what == "run":
        run(options.data, options.eps, options.seeds, options.shard)
    else:
        second(options.what, options.data, options.eps, options.seeds, options.shard)
