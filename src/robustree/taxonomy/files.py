"""Tree files: JSON in, checked with the line of every mistake, and JSON out.

    {"name": "unicode", "about": "...", "licence": "...", "cut_sizes": [8, 20, 50],
     "tree": {"animal": {"mammal": ["dog", "cat"]}, "food": ["bread", {"fruit": ["pear"]}]}}

`about`, `licence` and `cut_sizes` are optional. Instead of `tree` a file may list edges, child first, as
`"parents": {"dog": "mammal", "mammal": "animal"}`. Instead of `cut_sizes` it may name the internal nodes of
each level, finest level first, as `"levels": [["mammal", "fruit"], ["animal", "food"]]`.
Without both, `grow` says what the levels are.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from robustree.taxonomy.edges import nest
from robustree.taxonomy.forest import Forest, build_forest, join
from robustree.taxonomy.growing import check_leaves, grow
from robustree.taxonomy.layout import tree_to_json
from robustree.taxonomy.located_json import Json, parse, read_text
from robustree.taxonomy.nested import Nested, TreeSource, place, walk
from robustree.taxonomy.snapshot import forest_from_json, forest_to_json
from robustree.taxonomy.tree import Tree, check_tree_name

__all__ = [
    "forest_from_json",
    "forest_to_json",
    "leaves_of",
    "parse_tree",
    "read_forest",
    "read_tree",
    "tree_to_json",
    "write_forest",
]

_KEYS = ("name", "about", "licence", "cut_sizes", "levels", "tree", "parents")


def read_tree(path: Path | str, leaves: Sequence[str]) -> TreeSource:
    """The tree in a file, checked against the leaf classes; a ValueError names file, node and line."""
    return parse_tree(read_text(Path(path)), leaves, where=str(path))


def parse_tree(text: str, leaves: Sequence[str], *, where: str = "the text") -> TreeSource:
    """The tree in a text, checked against the leaf classes; `where` names the text in errors."""
    source = _source(text, where)
    with _errors_in(where):
        check_leaves(leaves, walk(source.name, source.nested))
    return source


def read_forest(paths: Sequence[Path | str], leaves: Sequence[str]) -> Forest:
    """The forest of the trees in these files, in this order, over these leaf classes."""
    grown = []
    for path in paths:
        source = read_tree(path, leaves)
        with _errors_in(str(path)):
            grown.append(grow(leaves, source))
    return join(leaves, grown)


def leaves_of(path: Path | str) -> tuple[str, ...]:
    """The leaf names of a tree file in the order of the file, which can so define the classes."""
    source = _source(read_text(Path(path)), str(path))
    with _errors_in(str(path)):
        return tuple(str(leaf) for leaf in walk(source.name, source.nested).leaves)


def write_forest(forest: Forest, directory: Path | str) -> tuple[Path, ...]:
    """Write every tree as `<directory>/<tree>.json` and return the paths.

    `read_forest(paths, forest.leaves)` gives an equal forest. Raises ValueError for a forest that no tree
    files can describe, such as one whose internal nodes are not numbered in the order of the tree.
    """
    contents = {tree.name: _written(forest, tree) for tree in forest.trees}
    sources = [parse_tree(text, forest.leaves, where=name) for name, text in contents.items()]
    if build_forest(forest.leaves, sources) != forest:
        raise ValueError(
            "the forest is not in the form that tree files describe: use forest_to_json for an exact copy."
        )
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in contents.items():
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(text, encoding="utf-8", newline="\n")
    return tuple(paths)


def _written(forest: Forest, tree: Tree) -> str:
    def children(nodes: Sequence[int]) -> Nested:
        leaves = [forest.names[node] for node in nodes if node < forest.leaf_count]
        inner = {forest.names[node]: children(tree.children(node)) for node in nodes if node >= forest.leaf_count}
        return [*leaves, inner] if leaves and inner else leaves or inner

    levels = tuple(
        tuple(forest.names[node] for node in sorted(set(level)) if node >= forest.leaf_count) for level in tree.levels
    )
    return tree_to_json(TreeSource(tree.name, children(tree.tops), levels=levels))


@contextmanager
def _errors_in(where: str) -> Iterator[None]:
    """Put the name of the file before the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _source(text: str, where: str) -> TreeSource:
    content = parse(text, where)
    with _errors_in(where):
        if not isinstance(content, dict):
            raise ValueError('the file holds no JSON object: write {"name": ..., "tree": ...}.')
        for key in content:
            if key not in _KEYS:
                near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.0)[0]
                raise ValueError(f"the key {key!r}{place(key)} is unknown: did you mean {near!r}?")
        name = _text(content, "name")
        if not name:
            raise ValueError('the tree has no name: add "name": "..." to the file.')
        check_tree_name(name)
        if ("tree" in content) == ("parents" in content):
            raise ValueError('the file needs "tree" or "parents": give exactly one of the two.')
        return TreeSource(
            name,
            cast(Nested, content["tree"]) if "tree" in content else nest(name, content["parents"]),
            _sizes(content),
            _text(content, "about"),
            _text(content, "licence"),
            _levels(content),
        )


def _text(content: dict[str, Json], key: str) -> str:
    value = content.get(key, "")
    if not isinstance(value, str):
        raise _wrong(content, key, "a string")
    return str(value)


def _sizes(content: dict[str, Json]) -> tuple[int, ...] | None:
    value = content.get("cut_sizes")
    if value is None:
        return None
    if not isinstance(value, list) or any(not isinstance(size, int) or isinstance(size, bool) for size in value):
        raise _wrong(content, "cut_sizes", "a list of whole numbers, as [8, 20, 50]")
    return tuple(size for size in value if isinstance(size, int))


def _levels(content: dict[str, Json]) -> tuple[tuple[str, ...], ...] | None:
    value = content.get("levels")
    if value is None:
        return None
    expected = "a list of lists of node names, finest level first"
    if not isinstance(value, list):
        raise _wrong(content, "levels", expected)
    levels = []
    for named in value:
        if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            raise _wrong(content, "levels", expected)
        levels.append(tuple(name for name in named if isinstance(name, str)))
    return tuple(levels)


def _wrong(content: dict[str, Json], key: str, expected: str) -> ValueError:
    written = next(name for name in content if name == key)
    return ValueError(f"{key!r}{place(written)} is {reprlib.repr(content[key])}, but must be {expected}.")
