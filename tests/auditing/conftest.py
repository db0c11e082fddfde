"""A tiny audit whose figures are counted by hand, and a synthetic one of the size of a real page."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from robustree.auditing.audit import Subject, audit
from robustree.auditing.rows import read_rows
from robustree.data import AuditImages
from robustree.geometry import Poincare, Sphere
from robustree.taxonomy.files import forest_to_json, parse_tree
from robustree.taxonomy.forest import Forest, build_forest
from robustree.tree_model import TreeModel

from .audited import PLAN

Row = dict[str, Any]

UNICODE = {
    "animal": {
        "mammal": ["dog", "cat", "horse", "mouse"],
        "bird": ["owl", "duck", "eagle"],
        "bug": ["bee", "ant", "beetle"],
    },
    "food": {"fruit": ["pear", "apple", "lemon", "cherry"], "dish": ["pizza", "soup", "bread"]},
    "vehicle": {"road": ["car", "bus", "bicycle"], "water": ["boat", "canoe"]},
}
PLACES = {
    "outdoors": {
        "farm": ["horse", "cat", "dog", "duck", "bee"],
        "forest": ["owl", "eagle", "ant", "beetle", "mouse"],
        "street": ["car", "bus", "bicycle"],
        "lake": ["boat", "canoe"],
    },
    "indoors": {"kitchen": ["pear", "apple", "lemon", "cherry", "bread"], "restaurant": ["pizza", "soup"]},
}
# (model, head) -> (clean, robust) skill at the leaf and at the coarsest cut
SKILLS = {
    ("clip", "cosine"): ((0.86, 0.04), (0.93, 0.03)),
    ("tecoa", "cosine"): ((0.68, 0.41), (0.80, 0.33)),
    ("hrft", "cosine"): ((0.70, 0.42), (0.83, 0.44)),
    ("hrft", "hyperbolic"): ((0.71, 0.43), (0.84, 0.49)),
}


def grow_forest(*trees: tuple[str, dict[str, Any]], leaves: list[str]) -> Forest:
    """Build a forest from nested dictionaries."""
    sources = [parse_tree(json.dumps({"name": name, "tree": tree}), leaves) for name, tree in trees]
    return build_forest(leaves, sources)


def synthetic_forest() -> Forest:
    """Return 22 leaves under two trees, two levels above the leaves in each."""
    leaves = [leaf for middle in UNICODE.values() for group in middle.values() for leaf in group]
    return grow_forest(("unicode", UNICODE), ("places", PLACES), leaves=leaves)


def synthetic_rows(forest: Forest, *, images: int = 120, seed: int = 7) -> list[Row]:
    """Return seeded rows in which clip falls to almost nothing and hrft keeps its superclasses best."""
    dice = random.Random(seed)
    cuts = forest.cuts()
    rows = []
    hardness = [(f"twemoji/{k:03d}", k % forest.leaf_count, dice.random()) for k in range(images)]
    labels = [cut.label for cut in cuts] + ["all"]
    labels += [f"{cut.label}:{readout}" for cut in cuts[1:] for readout in ("via_leaf", "summed")]
    passes = [("clean", "")] + [("pgd-20", label) for label in labels] + [("square-500", "leaf")]
    for (model, head), (low, high) in SKILLS.items():
        for image, leaf, hard in hardness:
            for attack, attacked in passes:
                row: Row = {"image": image, "leaf": leaf, "model": model, "head": head}
                row |= {"attack": attack, "attacked": attacked, "direct": {}, "summed": {}}
                for cut in cuts:
                    share = cut.level / 2
                    skills = [a + (b - a) * share for a, b in zip(low, high, strict=True)]
                    near = attacked in ("all", cut.label) or attacked.startswith(f"{cut.label}:")
                    loss = 0.0 if attack == "clean" else (skills[0] - skills[1]) * (1.0 if near else 0.72)
                    loss *= 0.55 if attack == "square-500" else 1.0
                    for readout in ("direct", "summed"):
                        right = hard + dice.uniform(-0.05, 0.05) < skills[0] - loss
                        truth = cut.of_leaf[leaf]
                        wrong = (truth + 1 + int(dice.random() ** 3 * (len(cut.nodes) - 1))) % len(cut.nodes)
                        row[readout][cut.label] = truth if right else wrong
                row["summed"]["leaf"] = row["direct"]["leaf"]
                row |= {"distance": 0.0 if attack == "clean" else 4 / 255, "valid": True}
                rows.append(row)
    return rows


def synthetic_audit(forest: Forest, *, images: int = 120) -> dict[str, Any]:
    """Return the description that an audit writes beside its rows."""
    return {
        "models": ["clip", "tecoa", "hrft"],
        "heads": {f"{model}/{head}": {"scale": 100.0, "name": head} for model, head in SKILLS},
        "threat": {"eps": 4 / 255, "norm": "linf"},
        "attacks": {"pgd-20": {"attack": {"attack": "PGD", "steps": 20}, "loss": "margin"}},
        "stop": False,
        "forest": forest.fingerprint,
        "seed": 0,
        "images": images,
        "versions": {"robustree": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        "command": "robustree audit --models clip tecoa hrft --eps 4/255 --attacks pgd-20 square-500",
        "spearman": {"hrft/hyperbolic": -0.81, "hrft/cosine": -0.81},
    }


def draw_gallery(directory: Path, forest: Forest) -> None:
    """Draw four small pictures with their perturbation and adversarial form, and describe them."""
    dice = random.Random(3)
    entries = []
    for number, name in enumerate(["dog", "pear", "bus", "owl"]):
        leaf = forest.leaves.index(name)
        clean = Image.new("RGB", (96, 96), "white")
        pen = ImageDraw.Draw(clean)
        for _ in range(5):
            x, y, r = dice.randint(10, 70), dice.randint(10, 70), dice.randint(8, 24)
            pen.ellipse((x, y, x + r, y + r), fill=tuple(dice.randint(40, 230) for _ in range(3)))
        noise = Image.frombytes("RGB", (96, 96), bytes(dice.choice((48, 128, 208)) for _ in range(96 * 96 * 3)))
        pictures = {"clean": clean, "perturbation": noise, "adversarial": Image.blend(clean, noise, 0.08)}
        for kind, picture in pictures.items():
            picture.save(directory / "gallery" / f"{number}-{kind}.png")
        truth = {tree.name: [forest.names[n] for n in forest.path(tree.name, leaf)] for tree in forest.trees}
        other = (leaf + (3, 11, 7, 1)[number]) % forest.leaf_count
        paths = {}
        for rank, model in enumerate(["clip", "tecoa", "hrft"]):
            adversarial = {}
            for tree in forest.trees:
                wrong = [forest.names[n] for n in forest.path(tree.name, other)]
                kept = truth[tree.name]
                adversarial[tree.name] = [wrong, [wrong[0], *kept[1:]], kept][min(2, (rank + number) % 3)]
            paths[model] = {name: {"clean": truth[name], "adversarial": adversarial[name]} for name in truth}
        entries.append(
            {
                "image": f"twemoji/{name}",
                "model": ["clip", "tecoa", "hrft", "tecoa"][number],
                "head": "cosine",
                "attacked": ["leaf", "unicode/2", "all", "unicode/1"][number],
                "eps": 4 / 255,
                "paths": paths,
                "truth": truth,
            }
            | {f"{kind}_png": f"{number}-{kind}.png" for kind in pictures}
        )
    (directory / "gallery.json").write_text(json.dumps(entries), encoding="utf-8")


def write_audit(directory: Path, *, gallery: bool = True, images: int = 120) -> Path:
    """Write a whole synthetic audit folder and return it."""
    forest = synthetic_forest()
    directory.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row) + "\n" for row in synthetic_rows(forest, images=images))
    (directory / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    (directory / "audit.json").write_text(json.dumps(synthetic_audit(forest, images=images)), encoding="utf-8")
    (directory / "forest.json").write_text(json.dumps(forest_to_json(forest)), encoding="utf-8")
    if gallery:
        (directory / "gallery").mkdir()
        draw_gallery(directory, forest)
    return directory


@pytest.fixture(scope="session")
def forest() -> Forest:
    """The synthetic forest."""
    return synthetic_forest()


@pytest.fixture(scope="session")
def rows(forest: Forest) -> list[Row]:
    """The synthetic rows."""
    return synthetic_rows(forest)


@pytest.fixture(scope="session")
def audit_folder() -> Callable[..., Path]:
    """Return the function that writes a synthetic audit folder."""
    return write_audit


@pytest.fixture
def tiny_forest() -> Forest:
    """dog, cat (mammal), pear, kiwi (fruit), both under `thing`: one level of two nodes, one of one node."""
    return grow_forest(
        ("kind", {"mammal": ["dog", "cat"], "fruit": ["pear", "kiwi"]}), leaves=["dog", "cat", "pear", "kiwi"]
    )


@pytest.fixture
def tiny_rows() -> list[Row]:
    """Four images of two models, three passes each, small enough to count by hand."""
    #            image  leaf | direct leaf, kind | summed kind
    passes = {
        ("a", "clean", ""): [(0, 0, 0), (1, 0, 0), (2, 1, 1), (2, 1, 0)],
        ("a", "pgd-20", "leaf"): [(0, 0, 0), (0, 0, 0), (0, 1, 1), (3, 1, 1)],
        ("a", "pgd-20", "kind/1"): [(0, 1, 0), (1, 0, 0), (2, 1, 1), (2, 0, 0)],
        ("b", "clean", ""): [(0, 0, 0), (1, 0, 0), (2, 1, 1), (3, 1, 1)],
        ("b", "pgd-20", "leaf"): [(0, 0, 0), (1, 0, 0), (2, 1, 1), (0, 1, 1)],
        ("b", "pgd-20", "kind/1"): [(0, 0, 0), (1, 0, 0), (2, 1, 1), (3, 1, 1)],
    }
    return [
        {
            "image": f"i{leaf}",
            "leaf": leaf,
            "model": model,
            "head": "cosine",
            "attack": attack,
            "attacked": attacked,
            "direct": {"leaf": own, "kind/1": kind},
            "summed": {"leaf": own, "kind/1": summed},
            "distance": 0.0 if attack == "clean" else 0.015,
            "valid": True,
        }
        for (model, attack, attacked), predictions in passes.items()
        for leaf, (own, kind, summed) in enumerate(predictions)
    ]


@pytest.fixture
def images(tiny_images: Callable[[int], Tensor], make_tree_model: Callable[..., TreeModel]) -> AuditImages:
    """Ten images labelled by the model's own decisions, three of them wrongly: accuracy has room to fall."""
    pixels = tiny_images(10)
    with torch.no_grad():
        leaves = make_tree_model(Sphere())(pixels).nodes[:, :9].argmax(1)
    leaves[:3] = (leaves[:3] + 1) % 9
    return AuditImages(pixels, leaves, tuple(f"noise/{k}" for k in range(10)))


@pytest.fixture
def subjects(make_tree_model: Callable[..., TreeModel]) -> list[Subject]:
    """One set of weights under two heads, and another one under CLIP's."""
    return [
        Subject("first", make_tree_model(Sphere()).requires_grad_(False)),
        Subject("first", make_tree_model(Poincare()).requires_grad_(False)),
        Subject("second", make_tree_model(Sphere(), seed=1).requires_grad_(False)),
    ]


@pytest.fixture
def run(subjects: list[Subject], images: AuditImages, two_trees: Forest, tmp_path: Path) -> Callable[..., list[Row]]:
    """Audit into tmp_path/<name>, with changes, and read the rows."""

    def go(name: str = "audit", **changes: Any) -> list[Row]:
        arguments = {"subjects": subjects, "images": images, "forest": two_trees, "plan": PLAN} | changes
        report = arguments.pop("report", lambda status: None)
        audit(**arguments, directory=tmp_path / name, command="robustree audit", report=report)
        return list(read_rows(tmp_path / name))

    return go
