"""The page of trees shows what the code says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from math import log
from pathlib import Path

from robustree.cli.tree import table_of_shipped_trees
from robustree.taxonomy import SHIPPED_TREES, leaves_of, shipped_forest, shipped_tree_file

PAGE = (Path(__file__).parents[2] / "docs" / "trees.md").read_text(encoding="utf-8")


def entropy(labels: Sequence[object]) -> float:
    return -sum(count / len(labels) * log(count / len(labels)) for count in Counter(labels).values())


def shared(a: Sequence[int], b: Sequence[int]) -> float:
    """2 I(A; B) / (H(A) + H(B)), with I(A; B) = H(A) + H(B) - H(A, B)."""
    both = entropy(a) + entropy(b)
    return 2 * (both - entropy([*zip(a, b, strict=True)])) / both


def test_the_page_holds_the_table_that_tree_list_prints() -> None:
    assert table_of_shipped_trees() in PAGE
    counts = [len(trees) for trees in SHIPPED_TREES.values() if trees]
    assert f"{sum(counts)} trees over {len(counts)} data sets" in PAGE


def test_the_page_holds_the_shared_information_of_the_imagenet_trees() -> None:
    trees = shipped_forest("imagenet", leaves_of(shipped_tree_file("imagenet", "kind"))).trees
    for a, b in combinations(trees, 2):
        fine, coarse = shared(a.levels[0], b.levels[0]), shared(a.levels[-1], b.levels[-1])
        assert f"| {a.name}, {b.name} | {fine:.2f} | {coarse:.2f} |" in PAGE
    assert shared(trees[0].levels[0], trees[0].levels[0]) == 1
