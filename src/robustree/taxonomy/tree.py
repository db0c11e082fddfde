"""One label tree over the leaves of a forest: parents, nested levels, and its questions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

ROOT = -1
"""The implicit root: the parent of every top node of a tree."""

_TREE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RESERVED_NAMES = ("leaf", "all", "clean")


def check_tree_name(name: str) -> None:
    """Raise ValueError unless a tree may have this name, which is part of cut labels and file names."""
    if not _TREE_NAME.fullmatch(name) or name in _RESERVED_NAMES:
        raise ValueError(
            f"a tree cannot be named {name!r}: use letters, digits, '.', '_' and '-', "
            f"and none of {', '.join(_RESERVED_NAMES)}."
        )


@dataclass(frozen=True)
class Tree:
    """One tree over the leaves of a forest.

    `parents[n]` is the parent of forest node n, or -1 for a top node and for a node outside this tree.
    `levels[l - 1][k]` is the node of leaf k at level l = 1..L; levels are nested and grow coarser with l.
    Raises ValueError when the parents hold a cycle, a level is no partition, or two levels do not nest.
    """

    name: str
    parents: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        check_tree_name(self.name)
        if not self.levels:
            raise ValueError(f"tree {self.name!r} has no level above its leaves: give it at least one.")
        self._check_parents()
        self._check_levels()

    @property
    def leaf_count(self) -> int:
        """The number of leaves K."""
        return len(self.levels[0])

    @property
    def depth(self) -> int:
        """The number of levels L above the leaves."""
        return len(self.levels)

    @cached_property
    def nodes(self) -> tuple[int, ...]:
        """All nodes of this tree, leaves first, in ascending order."""
        inner = {n for n in range(self.leaf_count, len(self.parents)) if self.parents[n] != ROOT}
        inner.update(parent for parent in self.parents if parent != ROOT)
        return (*range(self.leaf_count), *sorted(inner))

    @cached_property
    def tops(self) -> tuple[int, ...]:
        """The nodes without a parent, in ascending order."""
        return tuple(n for n in self.nodes if self.parents[n] == ROOT)

    @cached_property
    def _children(self) -> dict[int, tuple[int, ...]]:
        below: dict[int, list[int]] = {n: [] for n in self.nodes}
        for n in self.nodes:
            if self.parents[n] != ROOT:
                below[self.parents[n]].append(n)
        return {n: tuple(children) for n, children in below.items()}

    @cached_property
    def _chains(self) -> dict[int, tuple[int, ...]]:
        """From each node (included) up to its top."""
        chains: dict[int, tuple[int, ...]] = {}
        for n in self.nodes:
            chain = [n]
            while self.parents[chain[-1]] != ROOT:
                chain.append(self.parents[chain[-1]])
            chains[n] = tuple(chain)
        return chains

    @cached_property
    def _heights(self) -> dict[int, int]:
        heights = dict.fromkeys(self.nodes, 0)
        for leaf in range(self.leaf_count):
            for steps, node in enumerate(self._chains[leaf]):
                heights[node] = max(heights[node], steps)
        heights[ROOT] = 1 + max(heights[top] for top in self.tops)
        return heights

    @cached_property
    def _leaves_below(self) -> dict[int, tuple[int, ...]]:
        below: dict[int, list[int]] = {n: [] for n in self.nodes}
        for leaf in range(self.leaf_count):
            for node in self._chains[leaf]:
                below[node].append(leaf)
        return {n: tuple(leaves) for n, leaves in below.items()}

    def children(self, node: int) -> tuple[int, ...]:
        """The children of a node in ascending order: its leaves first; empty for a leaf."""
        return self._children[self._known(node)]

    def leaves_below(self, node: int) -> tuple[int, ...]:
        """The leaves under a node in ascending order; a leaf is under itself."""
        return self._leaves_below[self._known(node)]

    def ancestors(self, node: int) -> tuple[int, ...]:
        """The nodes above a node up to its top, the node itself excluded."""
        return self._chains[self._known(node)][1:]

    def height(self, node: int) -> int:
        """The number of edges of the longest way down to a leaf; 0 for a leaf."""
        return self._heights[self._known(node)]

    def lca(self, a: int, b: int) -> int:
        """The lowest common ancestor of two nodes (a node is its own); -1 for the implicit root."""
        above_a = set(self._chains[self._known(a)])
        return next((n for n in self._chains[self._known(b)] if n in above_a), ROOT)

    def lca_height(self, a: int, b: int) -> int:
        """The height of the lowest common ancestor; the implicit root is one edge above the highest top."""
        return self._heights[self.lca(a, b)]

    def distance(self, a: int, b: int) -> int:
        """The number of edges between two nodes: depth(a) + depth(b) - 2 depth(lca)."""
        meet = self.lca(a, b)
        shared = 0 if meet == ROOT else len(self._chains[meet])
        return len(self._chains[a]) + len(self._chains[b]) - 2 * shared

    def _known(self, node: int) -> int:
        if node not in self._children:
            raise ValueError(f"node {node} is not in tree {self.name!r}: its nodes are listed in `nodes`.")
        return node

    def _check_parents(self) -> None:
        count = len(self.parents)
        if self.leaf_count > count:
            raise ValueError(f"tree {self.name!r} has {self.leaf_count} leaves but only {count} parents.")
        for node, parent in enumerate(self.parents):
            if parent != ROOT and not self.leaf_count <= parent < count:
                raise ValueError(
                    f"tree {self.name!r}: the parent of node {node} is {parent}, "
                    f"but a parent is -1 or an internal node in {self.leaf_count}..{count - 1}."
                )
        safe: set[int] = set()
        for start in range(count):
            chain: dict[int, None] = {}
            node = start
            while node != ROOT and node not in safe:
                if node in chain:
                    raise ValueError(f"tree {self.name!r}: node {node} is its own ancestor: cut the cycle.")
                chain[node] = None
                node = self.parents[node]
            safe.update(chain)
        for node in self.nodes:
            if not self._leaves_below[node]:
                raise ValueError(f"tree {self.name!r}: node {node} has no leaf below it: remove it.")

    def _check_levels(self) -> None:
        previous = tuple(range(self.leaf_count))
        for number, level in enumerate(self.levels, start=1):
            if len(level) != self.leaf_count:
                raise ValueError(f"tree {self.name!r}: level {number} has {len(level)} entries, not {self.leaf_count}.")
            groups: dict[int, list[int]] = {}
            for leaf, node in enumerate(level):
                groups.setdefault(node, []).append(leaf)
            for node, members in groups.items():
                if node not in self._children or self._leaves_below[node] != tuple(members):
                    raise ValueError(
                        f"tree {self.name!r}: level {number} is no partition of the leaves: "
                        f"node {node} must stand for exactly the leaves below it."
                    )
            for leaf, (lower, upper) in enumerate(zip(previous, level, strict=True)):
                if upper not in self._chains[lower]:
                    raise ValueError(
                        f"tree {self.name!r}: level {number} does not nest: the node {upper} of leaf {leaf} "
                        f"is not above its node {lower} at level {number - 1}."
                    )
            previous = level
