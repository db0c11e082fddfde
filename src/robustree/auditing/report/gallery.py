"""The gallery of an audit: pictures before and after an attack, with the prediction at every level."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustree.taxonomy.forest import Forest

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYS = (
    "image",
    "model",
    "head",
    "attacked",
    "eps",
    "clean_png",
    "perturbation_png",
    "adversarial_png",
    "paths",
)


@dataclass(frozen=True)
class Decision:
    """One model's decision at one level: on the clean and on the adversarial image."""

    clean: str
    adversarial: str
    clean_right: bool
    adversarial_right: bool


@dataclass(frozen=True)
class Level:
    """One level of one exhibit: its cut's label, the true node's name and a decision per model."""

    label: str
    truth: str
    decisions: tuple[Decision, ...]


@dataclass(frozen=True)
class Exhibit:
    """One attacked image; `pictures` are data URIs: clean, perturbation, adversarial."""

    image: str
    model: str
    head: str
    attacked: str
    eps: float
    pictures: tuple[str, str, str]
    models: tuple[str, ...]
    levels: tuple[Level, ...]


def read_gallery(directory: Path, forest: Forest) -> tuple[Exhibit, ...]:
    """Read `gallery.json` and the PNG files that it names inside `gallery/`; () if there is no gallery.json.

    Raises ValueError for an entry without a needed key, a file that is not a PNG inside `gallery/`, and a path
    that does not name one node of the forest per level.
    """
    source = directory / "gallery.json"
    if not source.exists():
        return ()
    entries = json.loads(source.read_text(encoding="utf-8"))
    return tuple(_exhibit(entry, directory / "gallery", forest) for entry in entries)


def _exhibit(entry: Mapping[str, Any], folder: Path, forest: Forest) -> Exhibit:
    for key in (*KEYS, "truth"):
        if key not in entry:
            raise ValueError(f"A gallery entry has no {key!r}: it needs {', '.join((*KEYS, 'truth'))}.")
    clean, perturbation, adversarial = (
        _data_uri(folder, entry[f"{kind}_png"]) for kind in ("clean", "perturbation", "adversarial")
    )
    models = tuple(entry["paths"])
    levels = []
    for number, tree in enumerate(forest.trees):
        truth = _path(entry["truth"], tree.name, forest)
        found = [
            (
                _path(paths[tree.name], "clean", forest, tree.name),
                _path(paths[tree.name], "adversarial", forest, tree.name),
            )
            for paths in entry["paths"].values()
        ]
        for level in range(1 if number else 0, len(truth)):
            decisions = tuple(
                Decision(before[level], after[level], before[level] == truth[level], after[level] == truth[level])
                for before, after in found
            )
            levels.append(Level(forest.cut(tree.name, level).label, truth[level], decisions))
    return Exhibit(
        entry["image"],
        entry["model"],
        entry["head"],
        entry["attacked"],
        entry["eps"],
        (clean, perturbation, adversarial),
        models,
        tuple(levels),
    )


def _path(paths: Mapping[str, Sequence[str]], key: str, forest: Forest, tree_name: str | None = None) -> Sequence[str]:
    names = paths[key]
    tree = forest.tree(tree_name or key)
    if len(names) != len(tree.levels) + 1:
        raise ValueError(
            f"A gallery path in tree {tree.name!r} names {len(names)} nodes, but the tree has "
            f"{len(tree.levels) + 1} levels: name one node per level, from the leaf to the top."
        )
    for level, name in enumerate(names):
        if name not in (forest.names[node] for node in forest.cut(tree.name, level).nodes):
            raise ValueError(
                f"A gallery path names {name!r} at level {level} of tree {tree.name!r}, which has no such "
                "node: write the gallery with the audit's own forest."
            )
    return names


def _data_uri(folder: Path, name: str) -> str:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise ValueError(f"The gallery names the picture {name!r}, but {folder.name}/ holds no such file.")
    content = path.read_bytes()
    if not content.startswith(PNG_SIGNATURE):
        raise ValueError(f"The gallery's picture {name!r} is no PNG file: save it as PNG.")
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
