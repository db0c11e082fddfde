"""Label trees over one set of leaf classes: the frozen types `Cut`, `Tree`, `Forest`, and their builder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from robustree.taxonomy.growing import GrownTree, grow
from robustree.taxonomy.nested import TreeSource
from robustree.taxonomy.tree import ROOT, Tree

__all__ = ["ROOT", "Cut", "Forest", "Tree", "TreeSource", "build_forest", "join"]


@dataclass(frozen=True)
class Cut:
    """One level of one tree, as a partition of the leaves: leaf `k` belongs to node `nodes[of_leaf[k]]`.

    `nodes` holds forest node ids in ascending order; `of_leaf` has one entry per leaf. Level 0 is the leaves.
    """

    tree: str
    level: int
    nodes: tuple[int, ...]
    of_leaf: tuple[int, ...]

    @property
    def label(self) -> str:
        """The name of the cut: "leaf" for level 0, otherwise "<tree>/<level>"."""
        return "leaf" if self.level == 0 else f"{self.tree}/{self.level}"


@dataclass(frozen=True)
class Forest:
    """One or more trees that share their leaves.

    Nodes 0..leaf_count-1 are the leaves; then come the internal nodes of the first tree, of the second, and
    so on; internal nodes are never shared. A forest without trees is a flat label set.
    Raises ValueError when names, node ranges or levels are inconsistent.
    """

    names: tuple[str, ...]
    leaf_count: int
    trees: tuple[Tree, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.leaf_count <= len(self.names):
            raise ValueError(f"leaf_count is {self.leaf_count}, but must be in 1..{len(self.names)}.")
        for position, name in enumerate(self.names):
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f"node {position} is named {name!r}: a name is a string that is not blank.")
        self._refuse_twice(self.leaves, "the leaves")
        self._refuse_twice([tree.name for tree in self.trees], "the trees")
        first = self.leaf_count
        for tree in self.trees:
            if tree.leaf_count != self.leaf_count or len(tree.parents) != len(self.names):
                raise ValueError(
                    f"tree {tree.name!r} spans {tree.leaf_count} leaves and {len(tree.parents)} nodes, "
                    f"but the forest has {self.leaf_count} and {len(self.names)}."
                )
            inner = tree.nodes[self.leaf_count :]
            if inner != tuple(range(first, first + len(inner))):
                raise ValueError(
                    f"the internal nodes of tree {tree.name!r} must be numbered from {first} without a gap."
                )
            first += len(inner)
            for number, level in enumerate(tree.levels, start=1):
                level_names = [self.names[node] for node in sorted(set(level))]
                self._refuse_twice(level_names, f"the nodes of {tree.name}/{number}")
        if first != len(self.names):
            raise ValueError(f"node {first} ({self.names[first]!r}) belongs to no tree: remove it.")

    @staticmethod
    def _refuse_twice(names: Sequence[str], what: str) -> None:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise ValueError(f"{name!r} occurs twice among {what}: rename one of them.")
            seen.add(name)

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """The names of the leaf classes."""
        return self.names[: self.leaf_count]

    @cached_property
    def _cuts(self) -> dict[str, Cut]:
        every = tuple(range(self.leaf_count))
        cuts = [Cut("", 0, every, every)]
        for tree in self.trees:
            for number, level in enumerate(tree.levels, start=1):
                nodes = tuple(sorted(set(level)))
                index = {node: position for position, node in enumerate(nodes)}
                cuts.append(Cut(tree.name, number, nodes, tuple(index[node] for node in level)))
        return {cut.label: cut for cut in cuts}

    @property
    def leaf_cut(self) -> Cut:
        """The cut at level 0: every leaf stands for itself."""
        return self._cuts["leaf"]

    def tree(self, name: str) -> Tree:
        """The tree of that name."""
        for tree in self.trees:
            if tree.name == name:
                return tree
        known = ", ".join(tree.name for tree in self.trees) or "none"
        raise ValueError(f"there is no tree {name!r} in this forest: its trees are {known}.")

    def cut(self, tree_name: str, level: int) -> Cut:
        """The cut of a tree at level 0..L."""
        depth = self.tree(tree_name).depth
        if not 0 <= level <= depth:
            raise ValueError(f"tree {tree_name!r} has no level {level}: its levels are 0..{depth}.")
        return self._cuts[f"{tree_name}/{level}"] if level else self.leaf_cut

    def cuts(self) -> tuple[Cut, ...]:
        """The leaf cut, then the levels 1..L of every tree."""
        return tuple(self._cuts.values())

    def find_cut(self, label: str) -> Cut:
        """The cut with that label, "leaf" or "<tree>/<level>"."""
        if label not in self._cuts:
            raise ValueError(f"there is no cut {label!r} in this forest: its cuts are {', '.join(self._cuts)}.")
        return self._cuts[label]

    def path(self, tree_name: str, leaf: int) -> tuple[int, ...]:
        """The node ids of a leaf at levels 0..L."""
        if not 0 <= leaf < self.leaf_count:
            raise ValueError(f"{leaf} is no leaf: leaves are 0..{self.leaf_count - 1}.")
        return (leaf, *(level[leaf] for level in self.tree(tree_name).levels))

    def ancestors(self, tree_name: str, node: int) -> tuple[int, ...]:
        """The nodes above a node up to its top, the node itself excluded."""
        return self.tree(tree_name).ancestors(node)

    def height(self, tree_name: str, node: int) -> int:
        """The number of edges of the longest way down from a node to a leaf."""
        return self.tree(tree_name).height(node)

    def lca_height(self, tree_name: str, a: int, b: int) -> int:
        """The height of the lowest common ancestor of two nodes; 0 for a leaf and itself."""
        return self.tree(tree_name).lca_height(a, b)

    def distance(self, tree_name: str, a: int, b: int) -> int:
        """The number of edges between two nodes of a tree; an implicit root joins several tops."""
        return self.tree(tree_name).distance(a, b)

    def select(self, names: Sequence[str]) -> Forest:
        """The forest with these trees only, in this order; cuts keep their labels and their node order."""
        chosen = [self.tree(name) for name in names]
        inner = (node for tree in chosen for node in tree.nodes[self.leaf_count :])
        return self._part(range(self.leaf_count), inner, chosen)

    def restrict(self, leaves: Sequence[str]) -> Forest:
        """The forest over these classes only, in its own order; nodes without one of them are gone, cuts keep their
        labels. For classes that no training saw: harden over some, audit over the others.

        Raises:
            ValueError: no class is given, or a name is none of the leaves.
        """
        strange = next((name for name in leaves if name not in self.leaves), None)
        if strange is not None or not leaves:
            what = "no class was given" if strange is None else f"{strange!r} is no class of this forest"
            raise ValueError(f"{what}: give some of its {self.leaf_count} leaves.")
        kept = [leaf for leaf, name in enumerate(self.leaves) if name in set(leaves)]
        inner = {node for tree in self.trees for leaf in kept for node in tree.ancestors(leaf)}
        return self._part(kept, sorted(inner), self.trees)

    def _part(self, leaves: Sequence[int], inner: Iterable[int], trees: Sequence[Tree]) -> Forest:
        """The forest of these leaves and internal nodes, numbered in their order."""
        kept = [*leaves, *inner]
        renumbered = {old: new for new, old in enumerate(kept)} | {ROOT: ROOT}
        parts = tuple(
            Tree(
                tree.name,
                tuple(renumbered[tree.parents[old]] for old in kept),
                tuple(tuple(renumbered[level[leaf]] for leaf in leaves) for level in tree.levels),
            )
            for tree in trees
        )
        return Forest(tuple(self.names[old] for old in kept), len(leaves), parts)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 (hex) of names, parents and levels: equal for equal forests only."""
        content = [self.names, self.leaf_count, [[t.name, t.parents, t.levels] for t in self.trees]]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode("ascii")).hexdigest()


def build_forest(leaves: Sequence[str], sources: Sequence[TreeSource]) -> Forest:
    """Build a forest over `leaves` from written trees; `grow` defines nodes, levels and the errors raised."""
    return join(leaves, [grow(leaves, source) for source in sources])


def join(leaves: Sequence[str], grown: Sequence[GrownTree]) -> Forest:
    """Number trees that were grown over the same leaves as one forest."""
    total = len(leaves) + sum(len(part.names) for part in grown)
    names = [str(leaf) for leaf in leaves]
    trees = []
    for part in grown:
        shift = len(names) - len(leaves)
        number = {node: node + shift * (node >= len(leaves)) for node in range(ROOT, len(part.parents))}
        parents = [ROOT] * total
        for node, parent in enumerate(part.parents):
            parents[number[node]] = number[parent]
        levels = tuple(tuple(number[node] for node in level) for level in part.levels)
        trees.append(Tree(part.tree, tuple(parents), levels))
        names.extend(part.names)
    return Forest(tuple(names), len(leaves), tuple(trees))
