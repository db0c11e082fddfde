"""`robustree tree cluster`: a tree from the text embeddings of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from robustree.cli.class_lists import open_classes
from robustree.cli.tree_output import check_output, save_tree
from robustree.taxonomy.tree import check_tree_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TEMPLATES = (
    "{}",
    "this is a photo of a {}",
    "a picture that shows a {}",
    "a {} is a kind of thing",
    "what is a {}?",
    "the {} belongs to its family",
    "a close view of one {}",
    "a drawing of the {}",
    "a {} and others like it",
    "we looked at a {} for a while",
)
"""Sentences whose embeddings are averaged: what they share is the class."""
_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Build a tree by clustering a model's text embeddings of the class names."""

    classes: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CLASSES")]
    """A file with one class a line, a tree file, or a shipped list (emoji imagenet cifar100 ...)."""
    model: str
    """nano, a hub id, or a model directory."""
    output: Path
    """The tree file."""
    name: str = "cluster"
    """The tree's name."""
    levels: int = 5
    """The most levels above the leaves."""
    linkage: Literal["ward", "average", "complete"] = "ward"
    """How far two clusters are apart."""
    seed: int | None = None
    """Another tree for each seed: the sentences around the names are drawn again, with replacement. All once if left
    out."""


def build(options: Cluster) -> None:
    """Embed the names, cluster them and write the tree."""
    check_output(options.output, ".json")
    check_tree_name(options.name)
    classes = open_classes(options.classes).names
    from robustree.taxonomy.building.clusters import cluster_tree

    templates = chosen_templates(options.seed)
    source = cluster_tree(
        classes,
        embed(options.model, classes, templates),
        name=options.name,
        levels=options.levels,
        linkage=options.linkage,
        about=(
            f"Clusters ({options.linkage} linkage) of the text embeddings of {Path(options.model).name} over "
            f"{len(templates)} sentences{'' if options.seed is None else f' drawn with seed {options.seed}'}, cut by "
            "size, named after WordNet 3.0."
        ),
    )
    save_tree(source, classes, options.output)


def chosen_templates(seed: int | None) -> tuple[str, ...]:
    """All templates once, or as many drawn from them with replacement."""
    if seed is None:
        return TEMPLATES
    import numpy as np

    drawn = np.random.default_rng(seed).integers(len(TEMPLATES), size=len(TEMPLATES))
    return tuple(TEMPLATES[int(position)] for position in drawn)


def embed(model: str, classes: Sequence[str], templates: Sequence[str]) -> NDArray[np.float64]:
    """The mean over the templates of the unit-length text embeddings (K, D) of the classes.

    Raises:
        ValueError: there is no such model.
    """
    import torch

    from robustree.cli.loading import open_model
    from robustree.tree_model import fill

    opened = open_model(model)
    total = torch.zeros(len(classes), opened.text_projection.out_features, dtype=torch.float64)
    with torch.no_grad():
        for template in templates:
            prompts = fill(template, classes)
            for start in range(0, len(prompts), _BATCH):
                features = opened.text_projection(opened.text_features(prompts[start : start + _BATCH]))
                total[start : start + _BATCH] += torch.nn.functional.normalize(features.double())
    return (total / len(templates)).numpy()
