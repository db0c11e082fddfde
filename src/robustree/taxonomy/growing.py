"""From a written tree to numbered nodes, parents and levels."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from robustree.taxonomy.nested import TreeSource, WrittenTree, problem, walk

AUTOMATIC_LEVELS = 5
"""The most levels given to a ragged tree that names no sizes."""


@dataclass(frozen=True)
class GrownTree:
    """A tree numbered on its own: nodes 0..K-1 are the leaves, node K + i is the internal node `names[i]`."""

    tree: str
    names: tuple[str, ...]
    parents: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]


def grow(leaves: Sequence[str], source: TreeSource) -> GrownTree:
    """Number a written tree over `leaves` and find its levels.

    An internal node whose only child is an internal node is replaced by that child: the more specific name
    says the same about the same leaves. Level l takes on each root-to-leaf path
    the first node with at most `cut_sizes[l - 1]` leaves (a leaf has one); without sizes, a tree whose leaves
    all have the depth L as written has one level for each depth, and a ragged tree has the sizes
    T^(l/L), l = 1..L, with T the leaves of its largest group short of all leaves and L = min(5, depth).
    A level that is one group, or the same partition as the level below it, is dropped with a UserWarning
    (silently for the sizes chosen here). Source: docs/method.md, section 4, the partition rule.
    Raises ValueError for a bad tree, for leaves that are not exactly `leaves`, and when no level remains.
    """
    written = walk(source.name, source.nested)
    check_leaves(leaves, written)
    names = list(written.inner)
    stands_for = _collapse(written)
    kept = sorted(set(stands_for))
    number = {inner: len(leaves) + position for position, inner in enumerate(kept)}
    chains = [_chain(written, written.leaves[leaf]) for leaf in leaves]
    as_written = [[number[stands_for[inner]] for inner in chain] for chain in chains]
    collapsed = [[*dict.fromkeys(chain)] for chain in as_written]
    parents = [-1] * (len(leaves) + len(kept))
    for leaf, chain in enumerate(collapsed):
        for lower, upper in zip([leaf, *chain], chain, strict=False):
            parents[lower] = upper
    if source.cut_sizes is not None and source.levels is not None:
        raise problem(source.name, None, "both cut_sizes and levels are given: remove one of them.")
    named = [str(names[inner]) for inner in kept]
    levels = _levels(source, collapsed, as_written, {n: number[stands_for[i]] for i, n in enumerate(names)})
    return GrownTree(str(source.name), tuple(named), tuple(parents), levels)


def check_leaves(leaves: Sequence[str], written: WrittenTree) -> None:
    """Raise ValueError unless the leaves of the tree are exactly the classes `leaves`."""
    classes = set(leaves)
    for name in written.leaves:
        if name not in classes:
            near = difflib.get_close_matches(name, leaves, n=1, cutoff=0.0)
            raise problem(written.tree, name, f"the leaf {name!r} is no class of the model: did you mean {near[0]!r}?")
    missing = [leaf for leaf in leaves if leaf not in written.leaves]
    if not missing:
        return
    first = missing[0]
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    for name in written.inner:
        if name == first:
            raise problem(
                written.tree,
                name,
                f"the class {first!r}{more} is no leaf but has children: add a leaf of that name.",
            )
    raise problem(written.tree, None, f"the leaf {first!r}{more} is missing: every class occurs once in the tree.")


def _collapse(written: WrittenTree) -> list[int]:
    """For every internal node, the node that replaces it: itself, or the first node below that branches."""
    inner_children: list[list[int]] = [[] for _ in written.parents]
    has_leaf = [False] * len(written.parents)
    for node, parent in enumerate(written.parents):
        if parent >= 0:
            inner_children[parent].append(node)
    for parent in written.leaves.values():
        if parent >= 0:
            has_leaf[parent] = True
    stands_for = list(range(len(written.parents)))
    for node in reversed(stands_for.copy()):
        if len(inner_children[node]) == 1 and not has_leaf[node]:
            stands_for[node] = stands_for[inner_children[node][0]]
    return stands_for


def _chain(written: WrittenTree, inner: int) -> list[int]:
    chain = []
    while inner >= 0:
        chain.append(inner)
        inner = written.parents[inner]
    return chain


def _levels(
    source: TreeSource, collapsed: list[list[int]], as_written: list[list[int]], numbers: dict[str, int]
) -> tuple[tuple[int, ...], ...]:
    """All candidate levels with what they are called, then only those that say something new."""
    count = len(collapsed)
    depths = {len(chain) for chain in as_written}
    if source.levels is not None:
        candidates = [
            (f"level {position}", _named_level(source.name, named, collapsed, numbers))
            for position, named in enumerate(source.levels, start=1)
        ]
    elif source.cut_sizes is not None:
        _check_sizes(source)
        candidates = [(f"the level of size {size}", _sized_level(size, collapsed)) for size in source.cut_sizes]
    elif len(depths) == 1:
        height = depths.pop()
        candidates = [(f"level {depth + 1}", tuple(chain[depth] for chain in as_written)) for depth in range(height)]
    else:
        candidates = [("", _sized_level(size, collapsed)) for size in _automatic_sizes(collapsed)]
    levels: list[tuple[int, ...]] = []
    previous = tuple(range(count))
    for called, level in candidates:
        if len(set(level)) == 1:
            reason = "it is one group of all leaves"
        elif _partition(level) == _partition(previous):
            reason = "it groups the leaves as the level below it does"
        else:
            levels.append(level)
            previous = level
            continue
        if called:
            warnings.warn(f"tree {source.name!r}: {called} is dropped because {reason}.", UserWarning, stacklevel=2)
    if not levels:
        raise problem(
            source.name,
            None,
            "no level lies between the leaves and one group of all: add nodes that group leaves.",
        )
    return tuple(levels)


def _partition(level: tuple[int, ...]) -> tuple[int, ...]:
    first: dict[int, int] = {}
    return tuple(first.setdefault(node, leaf) for leaf, node in enumerate(level))


def _sizes(chains: list[list[int]]) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for chain in chains:
        for node in chain:
            sizes[node] = sizes.get(node, 0) + 1
    return sizes


def _sized_level(size: int, chains: list[list[int]]) -> tuple[int, ...]:
    sizes = _sizes(chains)
    return tuple(
        next((node for node in reversed(chain) if sizes[node] <= size), leaf) for leaf, chain in enumerate(chains)
    )


def _automatic_sizes(chains: list[list[int]]) -> list[int]:
    largest = max((size for size in _sizes(chains).values() if size < len(chains)), default=1)
    count = min(AUTOMATIC_LEVELS, max(len(chain) for chain in chains))
    return sorted({round(largest ** (position / count)) for position in range(1, count + 1)})


def _check_sizes(source: TreeSource) -> None:
    sizes = source.cut_sizes or ()
    whole = all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in sizes)
    if not sizes or not whole or list(sizes) != sorted(set(sizes)):
        raise problem(
            source.name,
            None,
            f"cut_sizes is {list(sizes)}: write ascending whole numbers of leaves, as [8, 20, 50].",
        )


def _named_level(
    tree: str, named: tuple[str, ...], chains: list[list[int]], numbers: dict[str, int]
) -> tuple[int, ...]:
    for name in named:
        if name not in numbers:
            near = difflib.get_close_matches(name, numbers, n=1, cutoff=0.0)
            hint = f"did you mean {str(near[0])!r}?" if near else "the tree has none."
            raise problem(tree, name, f"{name!r} in levels is no internal node of the tree: {hint}")
    wanted = {numbers[name]: name for name in named}
    level = []
    for leaf, chain in enumerate(chains):
        found = [node for node in chain if node in wanted]
        if len(found) > 1:
            lower, upper = wanted[found[0]], wanted[found[1]]
            raise problem(tree, lower, f"one level lists {lower!r} and {upper!r} above it: keep one of the two.")
        level.append(found[0] if found else leaf)
    return tuple(level)
