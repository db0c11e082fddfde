"""An exact copy of a forest as JSON values, for checkpoints and for the records beside results."""

from __future__ import annotations

from collections.abc import Mapping

from robustree.taxonomy.forest import Forest
from robustree.taxonomy.tree import Tree

_VERSION = 1
_KEYS = {"version", "leaf_count", "names", "trees", "fingerprint"}
_TREE_KEYS = {"name", "parents", "levels"}


def forest_to_json(forest: Forest) -> dict[str, object]:
    """The forest as lists, strings and integers; `forest_from_json` gives an equal forest."""
    return {
        "version": _VERSION,
        "leaf_count": forest.leaf_count,
        "names": list(forest.names),
        "trees": [
            {
                "name": tree.name,
                "parents": list(tree.parents),
                "levels": [list(level) for level in tree.levels],
            }
            for tree in forest.trees
        ],
        "fingerprint": forest.fingerprint,
    }


def forest_from_json(content: object) -> Forest:
    """The forest in what `forest_to_json` gave.

    Raises ValueError for a missing or unknown key, a wrong type, another version, an inconsistent forest, and
    a fingerprint that does not belong to the content.
    """
    record = _record(content, _KEYS, "a forest")
    if record["version"] != _VERSION:
        raise ValueError(f"the forest has version {record['version']!r}: this release reads version {_VERSION}.")
    trees = []
    for entry in _list(record["trees"], "trees"):
        tree = _record(entry, _TREE_KEYS, "a tree")
        levels = tuple(_integers(level, "a level") for level in _list(tree["levels"], "levels"))
        trees.append(Tree(_string(tree["name"]), _integers(tree["parents"], "parents"), levels))
    names = tuple(_string(name) for name in _list(record["names"], "names"))
    forest = Forest(names, _integer(record["leaf_count"], "leaf_count"), tuple(trees))
    if record["fingerprint"] != forest.fingerprint:
        raise ValueError(
            f"the fingerprint is {record['fingerprint']!r}, but the content has {forest.fingerprint!r}: "
            "the record was changed, so write it again."
        )
    return forest


def _record(content: object, keys: set[str], what: str) -> Mapping[str, object]:
    if not isinstance(content, Mapping) or set(content) != keys:
        found = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f"the record of {what} has {found}, but needs exactly the keys {sorted(keys)}.")
    return content


def _list(content: object, what: str) -> list[object]:
    if not isinstance(content, list):
        raise ValueError(f"{what} is a {type(content).__name__} in the record of a forest, but must be a list.")
    return content


def _string(content: object) -> str:
    if not isinstance(content, str):
        raise ValueError(f"{content!r} is a name in the record of a forest, but must be a string.")
    return content


def _integer(content: object, what: str) -> int:
    if not isinstance(content, int) or isinstance(content, bool):
        raise ValueError(f"{what} holds {content!r} in the record of a forest, but must hold whole numbers.")
    return content


def _integers(content: object, what: str) -> tuple[int, ...]:
    return tuple(_integer(entry, what) for entry in _list(content, what))
