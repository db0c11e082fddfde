"""How alike two label trees over the same leaves are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from robustree.taxonomy.forest import Cut, Forest


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """Two trees, and the mutual information of their levels.

    `levels[a - 1][b - 1]` compares level a of the first with level b of the second. `mean`: the mean over the levels
    that have the same number, counted from the leaves, up to the height of the lower tree; 1 for a tree and itself.
    """

    first: str
    second: str
    levels: tuple[tuple[float, ...], ...]

    @property
    def mean(self) -> float:
        pairs = [row[number] for number, row in enumerate(self.levels) if number < len(row)]
        return sum(pairs) / len(pairs)


def normalised_mutual_information(first: Sequence[int], second: Sequence[int]) -> float:
    """The normalised mutual information of two partitions, in [0, 1].

    NMI = 2 I(U; V) / (H(U) + H(V)), with H(U) = -sum_u p_u ln p_u, I(U; V) = sum_uv p_uv ln(p_uv / (p_u p_v)) and p the
    share of the leaves in a group, in two groups. Entry k is the group of leaf k. 1 for equal partitions, also for two
    that have one group. It grows with the number of groups also for unrelated partitions, and is 1 only for equal ones.

    Raises:
        ValueError: the partitions have no leaf, or another number of leaves.
    """
    count = len(first)
    if not count or count != len(second):
        raise ValueError(f"partitions of {count} and {len(second)} leaves cannot be compared: give the same leaves.")
    own = _entropy(Counter(first), count), _entropy(Counter(second), count)
    both = _entropy(Counter(zip(first, second, strict=True)), count)
    if sum(own) == 0:
        return 1.0
    return min(1.0, max(0.0, 2 * (sum(own) - both) / sum(own)))


def compare_trees(forest: Forest) -> tuple[Likeness, ...]:
    """Every pair of trees of a forest, in the order of the trees.

    Raises:
        ValueError: the forest has fewer than two trees.
    """
    if len(forest.trees) < 2:
        raise ValueError(f"a comparison needs at least two trees, not {len(forest.trees)}: name another one.")
    names = [tree.name for tree in forest.trees]
    return tuple(
        _likeness(forest, first, second) for number, first in enumerate(names) for second in names[number + 1 :]
    )


def _likeness(forest: Forest, first: str, second: str) -> Likeness:
    levels = tuple(
        tuple(normalised_mutual_information(a.of_leaf, b.of_leaf) for b in _cuts(forest, second))
        for a in _cuts(forest, first)
    )
    return Likeness(first=first, second=second, levels=levels)


def _cuts(forest: Forest, tree: str) -> list[Cut]:
    return [forest.cut(tree, level) for level in range(1, forest.tree(tree).depth + 1)]


def _entropy(sizes: Counter[int] | Counter[tuple[int, int]], count: int) -> float:
    return math.fsum(-size / count * math.log(size / count) for size in sizes.values())
