"""The label trees that come with the package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from robustree.taxonomy.files import parse_tree
from robustree.taxonomy.forest import Forest, build_forest

EMOJI_TREES = ("unicode", "wordnet", "place", "size", "words")
"""The five trees over the emoji classes."""


def emoji_forest(leaves: Sequence[str], trees: Sequence[str] = EMOJI_TREES) -> Forest:
    """The shipped trees over the emoji classes `leaves`, in the order of `trees`.

    Raises ValueError for a tree that is not shipped and for leaves that are not the emoji classes.
    """
    sources = []
    for name in trees:
        if name not in EMOJI_TREES:
            raise ValueError(f"there is no emoji tree {name!r}: the shipped trees are {', '.join(EMOJI_TREES)}.")
        resource = files("robustree.taxonomy").joinpath("library", "emoji", f"{name}.json")
        sources.append(parse_tree(resource.read_text(encoding="utf-8"), leaves, where=f"emoji/{name}.json"))
    return build_forest(leaves, sources)
