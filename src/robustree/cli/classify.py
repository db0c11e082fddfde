"""`robustree classify`: what images show, at every level of every tree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.text import Text
from torch import Tensor

from robustree.cli.loading import choose_device, choose_forest, open_over, sources
from robustree.cli.options import Device
from robustree.cli.parsing import parse
from robustree.data import read_image
from robustree.taxonomy import Forest
from robustree.tree_model import TEMPLATE, TreeModel


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is to be classified."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """nano, a hub id, a model directory or a hardened checkpoint."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """Image files."""
    trees: tuple[str, ...] = ()
    """Shipped trees (unicode wordnet place size words) or files; those of the checkpoint if left out."""
    other_trees: bool = False
    """Use a checkpoint with trees that it was not hardened with."""
    json: bool = False
    """Print JSON."""
    template: str = TEMPLATE
    """The prompt of a class for a plain model."""
    device: Device | None = None
    """cpu or cuda; the GPU if there is one, unless said here."""


def run(arguments: Sequence[str]) -> int:
    options = parse(Options, arguments, command="classify", about="Say what images show, at every level of trees.")
    if not options.images:
        raise ValueError("no image was given; name one or more image files after the model.")
    device, (source,) = choose_device(options.device), sources([options.model])
    data = "emoji" if options.model == "nano" and not options.trees else "images"
    if not options.trees and data != "emoji" and not source.checkpoint:
        raise ValueError(f"the model {options.model!r} comes without label trees: name them with --trees.")
    forest = choose_forest([source], options.trees, data, other_trees=options.other_trees)
    pixels = [read_image(path) for path in options.images]
    model = open_over(source, forest, template=options.template, device=device).model
    results = [
        {"image": str(path), "trees": classify(model, forest, image.to(device).float() / 255)}
        for path, image in zip(options.images, pixels, strict=True)
    ]
    if options.json:
        print(json.dumps(results, indent=1, ensure_ascii=False))
        return 0
    console = Console(soft_wrap=True, highlight=False)
    for result in results:
        console.print(Text(result["image"], "bold"))
        width = max(len(tree) for tree in result["trees"])
        for tree, path in result["trees"].items():
            console.print(Text(f"  {tree:<{width}}  ", "dim") + _line(path))
    return 0


@torch.no_grad()
def classify(model: TreeModel, forest: Forest, image: Tensor) -> dict[str, list[dict[str, Any]]]:
    """The decision of an image (3, H, W) at every level of every tree, coarsest first.

    `score` is the softmax over the nodes of the level. Levels decide on their own, so a decision may lie outside the
    one above it; `inside` says whether it lies inside.

    Raises:
        ValueError: the model gave scores that are not finite.
    """
    scores = model(image[None])
    if not bool(scores.nodes.isfinite().all()):
        raise ValueError("the model gave scores that are not finite: check its weights.")
    found: dict[str, list[dict[str, Any]]] = {}
    for tree in forest.trees:
        above: frozenset[int] | None = None
        for level in range(len(tree.levels), -1, -1):
            cut = forest.cut(tree.name, level)
            score, index = scores.at(cut)[0].softmax(0).max(0)
            leaves = frozenset(leaf for leaf, node in enumerate(cut.of_leaf) if node == int(index))
            entry = {"level": cut.label, "name": forest.names[cut.nodes[int(index)]], "score": round(float(score), 4)}
            found.setdefault(tree.name, []).append(entry | {"inside": above is None or leaves <= above})
            above = leaves
    return found


def _line(path: Sequence[dict[str, Any]]) -> Text:
    """living thing 97 %  ›  mammal 91 %  ›  fox 62 %; a decision outside the one above it is marked."""
    line = Text()
    for number, step in enumerate(path):
        if number:
            line += Text("  ›  ", "dim") if step["inside"] else Text("  ≠  ", "yellow")
        line += Text(step["name"]) + Text(f" {100 * step['score']:.0f} %", "dim")
    return line
