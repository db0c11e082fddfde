"""Levels by size: thresholds, and the nested partitions that they cut out of a tree.

A tree is given as its chains: for every leaf the internal nodes above it, from the lowest to the highest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Chains: TypeAlias = Sequence[Sequence[int]]


def chains_above(parents: Mapping[int, int], leaf_count: int) -> list[list[int]]:
    """The chains of the leaves 0..leaf_count-1 in a tree given by the parent of every node but the root's children."""
    chains = []
    for leaf in range(leaf_count):
        chain, node = [], leaf
        while node in parents:
            node = parents[node]
            chain.append(node)
        chains.append(chain)
    return chains


def node_sizes(chains: Chains) -> Counter[int]:
    """The number of leaves below every internal node."""
    return Counter(node for chain in chains for node in chain)


def sized_level(size: int, chains: Chains) -> tuple[int, ...]:
    """For every leaf the highest node above it with at most `size` leaves; the leaf itself where there is none.

    Source: METHOD section 4, the partition rule."""
    sizes = node_sizes(chains)
    return tuple(
        next((node for node in reversed(chain) if sizes[node] <= size), leaf) for leaf, chain in enumerate(chains)
    )


def geometric_sizes(largest: int, count: int) -> list[int]:
    """The thresholds largest^(l / count), l = 1..count, rounded to whole numbers."""
    return sorted({round(largest ** (position / count)) for position in range(1, count + 1)})


def partition(level: Sequence[int]) -> tuple[int, ...]:
    """The first leaf of every leaf's group: equal for equal partitions, whatever their nodes are called."""
    first: dict[int, int] = {}
    return tuple(first.setdefault(node, leaf) for leaf, node in enumerate(level))


def useful_sizes(chains: Chains, levels: int) -> tuple[int, ...]:
    """The thresholds K^(l / (levels + 1)), l = 1..levels, for K leaves, but for those that say nothing new.

    Each that is kept gives a level of several groups that is another partition than the level below it; there may
    be none. Raises ValueError for fewer than one level.
    """
    if levels < 1:
        raise ValueError(f"{levels} levels were asked for; a tree has at least one above its leaves.")
    kept, below = [], tuple(range(len(chains)))
    for size in geometric_sizes(len(chains), levels + 1)[:-1]:
        groups = partition(sized_level(size, chains))
        if groups != below and len(set(groups)) > 1:
            kept.append(size)
            below = groups
    return tuple(kept)
