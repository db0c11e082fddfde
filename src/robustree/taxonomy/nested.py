"""A tree as its author wrote it, and the walk that finds what is wrong with it."""

from __future__ import annotations

import reprlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

MAX_DEPTH = 64
"""The most internal nodes that may lie above one another."""

Nested: TypeAlias = "Mapping[str, Nested] | Sequence[str | Mapping[str, Nested]]"
"""Children of a node: {name: children}, or a list that mixes leaf names and such mappings."""


@dataclass(frozen=True)
class TreeSource:
    """A tree as its author wrote it.

    `nested` holds the children of the implicit root. At most one of `cut_sizes` (ascending numbers of leaves)
    and `levels` (the internal nodes of each level, finest level first; a leaf below none of them stands for
    itself) may be given; without both, the levels follow from the depths (see `grow`).
    """

    name: str
    nested: Nested
    cut_sizes: tuple[int, ...] | None = None
    about: str = ""
    licence: str = ""
    levels: tuple[tuple[str, ...], ...] | None = None


class LocatedName(str):
    """A name that remembers the line of the file it was read from."""

    line: int

    def __new__(cls, text: str, line: int = 0) -> LocatedName:
        located = super().__new__(cls, text)
        located.line = line
        return located


def place(name: object) -> str:
    """ ", line 7" for a name that was read from line 7 of a file, otherwise nothing."""
    return f", line {name.line}" if isinstance(name, LocatedName) and name.line else ""


def problem(tree: str, name: object, sentence: str) -> ValueError:
    """The error for a bad tree: it names the tree and, where `name` was read from a file, the line."""
    return ValueError(f"tree {tree!r}{place(name)}: {sentence}")


@dataclass
class WrittenTree:
    """The nodes in the order of the file: parents are positions in `inner`, or -1 at the top.

    Filled by `walk`, which raises ValueError for a cycle, a node with two parents, a duplicate leaf, a node
    without children, an empty name, a wrong type, or a nesting deeper than `MAX_DEPTH`.
    """

    tree: str
    inner: dict[str, int] = field(default_factory=dict)
    parents: list[int] = field(default_factory=list)
    leaves: dict[str, int] = field(default_factory=dict)

    def visit(self, children: object, above: tuple[str, ...]) -> None:
        owner = above[-1] if above else self.tree
        if len(above) > MAX_DEPTH:
            raise problem(self.tree, owner, f"more than {MAX_DEPTH} nodes lie above one another: flatten it.")
        if isinstance(children, Mapping):
            entries: Sequence[object] = [children]
        elif isinstance(children, Sequence) and not isinstance(children, str):
            entries = children
        else:
            raise problem(
                self.tree,
                owner,
                f"the children of {owner!r} are {reprlib.repr(children)}, but must be a list or an object.",
            )
        if all(isinstance(entry, Mapping) and not entry for entry in entries):
            raise problem(self.tree, owner, f"{owner!r} has no children: list its leaves or remove it.")
        for entry in entries:
            if isinstance(entry, str):
                self.add_leaf(entry, above)
            elif isinstance(entry, Mapping):
                for name, below in entry.items():
                    self.add_inner(name, above)
                    self.visit(below, (*above, name))
            else:
                raise problem(
                    self.tree,
                    owner,
                    f"{reprlib.repr(entry)} below {owner!r} is neither a leaf name nor an object.",
                )

    def add_leaf(self, name: str, above: tuple[str, ...]) -> None:
        self._check_name(name, above)
        if name in self.leaves:
            raise problem(
                self.tree,
                name,
                f"duplicate leaf {name!r}: a leaf occurs once in a tree, so remove one of the two.",
            )
        self.leaves[name] = self.inner[above[-1]] if above else -1

    def add_inner(self, name: str, above: tuple[str, ...]) -> None:
        self._check_name(name, above)
        if name in above:
            raise problem(self.tree, name, f"cycle: {name!r} is below itself, so remove or rename one of the two.")
        if name in self.inner:
            raise problem(
                self.tree,
                name,
                f"{name!r} has two parents, but a tree allows one: remove or rename one of the two.",
            )
        self.inner[name] = len(self.inner)
        self.parents.append(self.inner[above[-1]] if above else -1)

    def _check_name(self, name: object, above: tuple[str, ...]) -> None:
        owner = above[-1] if above else self.tree
        near = name if isinstance(name, LocatedName) else owner
        if not isinstance(name, str) or not name.strip():
            raise problem(self.tree, near, f"a node below {owner!r} is named {name!r}: write a name, not a blank.")
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise problem(self.tree, near, f"the name {name!r} holds a control character: remove it.")


def walk(name: str, nested: Nested) -> WrittenTree:
    """The nodes of a nested tree in the order in which they are written."""
    written = WrittenTree(name)
    written.visit(nested, ())
    return written


def assemble(leaves: Sequence[str], chains: Sequence[Sequence[int]], names: Mapping[int, str]) -> Nested:
    """The nested tree in which leaf k lies below the nodes `chains[k]`, the lowest first; `names` are the nodes'.

    Children keep the order of their first leaf, but the leaves of a node come before its nodes."""
    below: dict[int, dict[int, None]] = {}
    single: dict[int, list[str]] = {}
    root = -1
    for leaf, chain in zip(leaves, chains, strict=True):
        path = [*chain, root]
        single.setdefault(path[0], []).append(leaf)
        for child, parent in pairwise(path):
            below.setdefault(parent, {})[child] = None

    def children(node: int) -> Nested:
        inner = {names[child]: children(child) for child in below.get(node, {})}
        own = single.get(node, [])
        return [*own, inner] if own and inner else own or inner

    return children(root)
