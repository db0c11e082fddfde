"""The label trees that come with the package, `library/<data set>/<tree>.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from robustree.taxonomy.files import parse_tree
from robustree.taxonomy.forest import Forest, build_forest
from robustree.taxonomy.located_json import read_text

SHIPPED_TREES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "emoji": ("unicode", "wordnet", "place", "size", "words"),
        "imagenet": ("kind", "place", "size", "motion", "wordnet"),
        "tiny_imagenet": ("kind", "place", "size", "motion", "wordnet"),
        "cifar10": ("kind", "size"),
        "cifar100": ("official", "place"),
        "stl10": ("kind", "size"),
        "caltech101": ("kind", "place"),
        "caltech256": ("kind", "size"),
        "pets": ("species", "coat", "origin"),
        "flowers102": ("botany", "shape"),
        "food101": ("course", "cuisine"),
        "cars": ("make", "body"),
        "aircraft": ("official", "role"),
        "sun397": ("setting", "activity"),
        "dtd": ("perception", "origin"),
        "eurosat": ("cover", "pattern"),
        "pcam": (),
    }
)
"""The trees of each data set, the one to start with first. Two classes (pcam) leave no level between them and all."""

EMOJI_TREES = SHIPPED_TREES["emoji"]
"""The five trees over the emoji classes."""


def _known_trees(data_set: str) -> tuple[str, ...]:
    """The names in `SHIPPED_TREES`; ValueError for a data set that is not there."""
    if data_set not in SHIPPED_TREES:
        raise ValueError(f"no trees of {data_set!r} are shipped: the data sets are {', '.join(SHIPPED_TREES)}.")
    return SHIPPED_TREES[data_set]


def shipped_tree_file(data_set: str, tree: str) -> Path:
    """The file of a shipped tree; ValueError for a data set or a tree that is not shipped."""
    known = _known_trees(data_set)
    if tree not in known:
        raise ValueError(f"there is no {data_set} tree {tree!r}: the shipped trees are {', '.join(known) or 'none'}.")
    return Path(str(files("robustree.taxonomy"))) / "library" / data_set / f"{tree}.json"


def shipped_forest(data_set: str, leaves: Sequence[str], trees: Sequence[str] | None = None) -> Forest:
    """The shipped trees of a data set over its classes `leaves`, in the order of `trees` (all for None).

    A data set whose classes leave no level (pcam) gives a forest without trees.
    Raises ValueError for a data set or a tree that is not shipped, and for leaves that are not the classes.
    """
    known = _known_trees(data_set)
    sources = []
    for name in known if trees is None else trees:
        text = read_text(shipped_tree_file(data_set, name))
        sources.append(parse_tree(text, leaves, where=f"{data_set}/{name}.json"))
    return build_forest(leaves, sources)
