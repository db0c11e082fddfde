"""Cuts by size, on random trees: partitions that nest, without groups that say nothing new."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustree.taxonomy import TreeSource, build_forest, parse_tree, tree_to_json
from robustree.taxonomy.nested import assemble
from robustree.taxonomy.sizing import chains_above, geometric_sizes, partition, sized_level, useful_sizes

FAST = settings(max_examples=80, deadline=None, derandomize=True)


@st.composite
def binary_trees(draw: st.DrawFn) -> list[list[int]]:
    """The chains of a random binary tree, as clustering makes them: 2 K - 2 nodes have a parent."""
    count = draw(st.integers(3, 40))
    free, parents = list(range(count)), {}
    for node in range(count, 2 * count - 1):
        for _ in range(2):
            parents[free.pop(draw(st.integers(0, len(free) - 1)))] = node
        free.append(node)
    return chains_above(parents, count)


def groups_of(level: tuple[int, ...]) -> set[frozenset[int]]:
    return {frozenset(leaf for leaf, node in enumerate(level) if node == group) for group in level}


@FAST
@given(binary_trees(), st.integers(1, 6))
def test_useful_sizes_give_nested_partitions_that_differ(chains: list[list[int]], levels: int) -> None:
    sizes = useful_sizes(chains, levels)
    assert len(sizes) <= levels and list(sizes) == sorted(set(sizes))
    finer = {frozenset({leaf}) for leaf in range(len(chains))}
    for size in sizes:
        groups = groups_of(sized_level(size, chains))
        assert set().union(*groups) == set(range(len(chains)))
        assert sum(map(len, groups)) == len(chains)
        assert max(map(len, groups)) <= size
        assert all(any(small <= large for large in groups) for small in finer)
        assert 1 < len(groups) < len(finer)
        finer = groups


@FAST
@given(binary_trees(), st.integers(1, 6))
def test_the_file_of_the_kept_nodes_gives_the_same_levels_without_unary_nodes(
    chains: list[list[int]], levels: int
) -> None:
    sizes = useful_sizes(chains, levels)
    if not sizes:
        return
    kept = {node for size in sizes for node in sized_level(size, chains)}
    short = [[node for node in chain if node in kept] for chain in chains]
    leaves = [f"leaf {leaf}" for leaf in range(len(chains))]
    nested = assemble(leaves, short, {node: f"node {node}" for chain in short for node in chain})
    source = TreeSource("t", nested, cut_sizes=sizes, about="é", licence="CC0")
    read = parse_tree(tree_to_json(source), leaves)
    assert read == source
    forest = build_forest(leaves, [read])
    assert len(forest.trees[0].levels) == len(sizes)
    for size, level in zip(sizes, forest.trees[0].levels, strict=True):
        assert partition(level) == partition(sized_level(size, chains))
    assert all(len(forest.trees[0].children(node)) > 1 for node in forest.trees[0].nodes if node >= len(leaves))


def test_thresholds_are_geometric() -> None:
    assert geometric_sizes(1000, 6) == [3, 10, 32, 100, 316, 1000]
    assert geometric_sizes(16, 4) == [2, 4, 8, 16]
    assert geometric_sizes(2, 5) == [1, 2]
    chains = chains_above({0: 16, 1: 16, **dict.fromkeys(range(2, 16), 17)}, 16)
    assert useful_sizes(chains, 3) == (2,)  # 4 and 8 give the same partition, and 17 holds 14 leaves
    assert useful_sizes(chains_above({}, 5), 3) == ()
    with pytest.raises(ValueError, match="0 levels were asked for; a tree has at least one"):
        useful_sizes(chains, 0)
