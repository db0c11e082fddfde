"""From what a user names (models, trees, data) to what an audit needs (subjects, a forest, images)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from robustree.checkpoint import find_checkpoint, load_checkpoint, read_forest_of
from robustree.cli.parsing import nearest
from robustree.cli.tree import SHIPPED_NAMES
from robustree.data import CATALOG, named_record
from robustree.models import VisionLanguageModel, load
from robustree.models.loading import nano_directory
from robustree.taxonomy import SHIPPED_TREES, Cut, Forest, leaves_of, read_forest
from robustree.tree_model import TEMPLATE, TreeModel, build_tree_model, cosine_head


@dataclass(frozen=True)
class Source:
    """A model as the user named it: `name` in tables, `where` it is."""

    name: str
    where: str

    @cached_property
    def checkpoint(self) -> Path | None:
        """The directory of a hardened checkpoint, fetched from the hub where it lies there; None for a plain model."""
        return find_checkpoint(self.where)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model over a forest, without gradients. `heads`: its own first, then CLIP's cosine head where that differs."""

    source: Source
    resolution: int
    heads: tuple[TreeModel, ...]

    @property
    def model(self) -> TreeModel:
        return self.heads[0]


def choose_device(name: str | None) -> torch.device:
    """The GPU if there is one, otherwise the CPU, or as asked; single precision is exact (no TF32).

    Raises:
        ValueError: cuda was asked for, and torch finds none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, but torch finds no CUDA device: leave --device out or give cpu.")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    kind = name or ("cuda" if torch.cuda.is_available() else "cpu")
    own = os.environ.get("LOCAL_RANK")  # of several processes on a machine each has its own GPU
    return torch.device(kind, int(own)) if kind == "cuda" and own else torch.device(kind)


def sources(values: Sequence[str]) -> tuple[Source, ...]:
    """Models from words such as "nano", "openai/clip-vit-base-patch32", "runs/tecoa" or "mine=runs/tecoa".

    Raises:
        ValueError: none was given, or two have one name.
    """
    if not values:
        raise ValueError("no model was given; give nano, a hub id, or a directory.")
    found = []
    for value in values:
        name, equals, where = value.partition("=")
        if not equals or Path(value).exists():
            name, where = Path(value).resolve().name if Path(value).exists() else value.rsplit("/", 1)[-1], value
        if not name or not where:
            raise ValueError(f"the model {value!r} has an empty part; write name=path.")
        if name in {other.name for other in found}:
            raise ValueError(f"two models are called {name!r}; write name=path to tell them apart.")
        found.append(Source(name, where))
    return tuple(found)


def forest_of_trees(trees: Sequence[str], data: str) -> Forest:
    """The forest of shipped trees (by name) or of tree files; the first file defines the classes of data without a
    record.

    Shipped trees are those of the data set, for data without a record those of the emoji; "imagenet/kind" names the
    tree of any set.

    Raises:
        ValueError: both kinds were given, an unknown name, a missing or bad file, or no tree for data without a record.
    """
    record, _ = named_record(data)
    owner = (record.within or record.name) if record else "emoji"
    full = {tree: tree if "/" in tree else f"{owner}/{tree}" for tree in trees}
    files = [
        tree for tree in trees if full[tree] not in SHIPPED_NAMES and (tree.endswith(".json") or Path(tree).is_file())
    ]
    shipped = [tree for tree in trees if tree not in files]
    for tree in shipped:
        if full[tree] not in SHIPPED_NAMES:
            own = SHIPPED_TREES.get(owner, ())
            raise ValueError(
                f"there is no tree {tree!r}{nearest(tree, own)}: give tree files or shipped trees ({', '.join(own)})."
            )
    if files and shipped:
        raise ValueError(
            f"--trees mixes shipped trees ({', '.join(shipped)}) and files ({', '.join(files)}); give one kind."
        )
    if files:
        return read_forest(files, record.classes if record else leaves_of(files[0]))
    if not shipped and record is None:
        raise ValueError(f"the data {data!r} comes without a label tree: name one with --trees my_tree.json.")
    owners = sorted({full[tree].partition("/")[0] for tree in shipped}) or [owner]
    if len(owners) > 1:
        raise ValueError(f"--trees names trees of {' and '.join(owners)}, whose classes differ: give those of one set.")
    named = record if record and record.within == owners[0] else CATALOG[owners[0]]
    return named.forest(tuple(full[tree].partition("/")[2] for tree in shipped) or None)


def choose_forest(models: Sequence[Source], trees: Sequence[str], data: str, *, other_trees: bool = False) -> Forest:
    """The forest of an audit: the named trees, else the one that all checkpoints share, else all shipped trees.

    Raises:
        ValueError: checkpoints disagree with each other or, unless `other_trees`, with the named trees.
    """
    hardened = {model.name: read_forest_of(model.checkpoint) for model in models if model.checkpoint}
    if trees or not hardened:
        wanted = forest_of_trees(trees, data)
        named = "--trees gives"
    else:
        first, wanted = next(iter(hardened.items()))
        named = f"{first!r} has"
    for name, own in hardened.items():
        if own.fingerprint != wanted.fingerprint and not other_trees:
            raise ValueError(
                f"the checkpoint {name!r} was hardened with {_described(own)}, but {named} {_described(wanted)}: "
                "give the same trees, or add --other-trees to audit it with trees that it has not seen."
            )
    return wanted


def _described(forest: Forest) -> str:
    return f"the trees {', '.join(tree.name for tree in forest.trees) or 'none'} (forest {forest.fingerprint[:8]})"


def find_level(forest: Forest, label: str) -> tuple[Cut, ...]:
    """The level called "leaf" or "unicode/1", or every level for "all".

    Raises:
        ValueError: there is no such level.
    """
    if label == "all":
        return forest.cuts()
    labels = [cut.label for cut in forest.cuts()]
    if label not in labels:
        raise ValueError(
            f"there is no level {label!r}{nearest(label, labels)}: the levels are {', '.join(labels)}, and all."
        )
    return (forest.find_cut(label),)


def open_model(where: str) -> VisionLanguageModel:
    """A plain model: "nano", a hub id or a directory.

    Raises:
        ValueError: nothing is there, or it cannot be used.
    """
    if where == "nano" and not nano_directory().is_dir():
        raise ValueError("the built-in model is not part of this installation: python recipes/nano.py trains it.")
    if "/" not in where and not Path(where).exists() and nearest(where, ["nano"]) and where != "nano":
        raise ValueError(f"there is no model {where!r}{nearest(where, ['nano'])}: give nano, a hub id or a directory.")
    return load(where)


def open_over(
    source: Source, forest: Forest, *, template: str | Sequence[str] = TEMPLATE, device: torch.device
) -> Loaded:
    """A model over a forest; a checkpoint keeps its own template, and any head but the cosine one gets that beside it.

    Raises:
        ValueError: nothing is there, or it cannot be used.
    """
    if source.checkpoint:
        checkpoint = load_checkpoint(source.checkpoint, forest=forest)
        plain, own = checkpoint.model, checkpoint.tree_model
    else:
        plain = open_model(source.where)
        side = plain.image_encoder.preprocessing.resolution
        # Images set the scale of heads other than the sphere's only, so any image will do here.
        own = build_tree_model(plain, forest, images=torch.full((1, 3, side, side), 0.5), template=template)
    heads = (own,) if own.head.space.name == "sphere" else (own, own.with_head(cosine_head(plain)))
    return Loaded(
        source=source,
        resolution=plain.image_encoder.preprocessing.resolution,
        heads=tuple(head.to(device).requires_grad_(False).eval() for head in heads),
    )
