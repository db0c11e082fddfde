"""Laws on random trees, against answers computed from the written tree alone."""

from __future__ import annotations

import json
import tempfile
import warnings
from itertools import pairwise

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from robustree.taxonomy import (
    Forest,
    TreeSource,
    build_forest,
    forest_from_json,
    forest_to_json,
    read_forest,
    write_forest,
)
from robustree.taxonomy.nested import Nested

FAST = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@st.composite
def sources(draw: st.DrawFn, count: int, name: str) -> TreeSource:
    """A tree in which every split is random; chains and single leaves under a node do occur."""
    label = iter(range(10_000))

    def split(leaves: list[str], room: int) -> list[str | dict[str, Nested]]:
        if room == 0 or len(leaves) == 1:
            return list(leaves)
        cuts = sorted(draw(st.sets(st.integers(1, len(leaves) - 1), max_size=4)))
        children: list[str | dict[str, Nested]] = []
        for start, end in pairwise([0, *cuts, len(leaves)]):
            part = leaves[start:end]
            if len(part) == 1 and draw(st.booleans()):
                children.append(part[0])
            else:
                children.append({f"{name} node {next(label)}": split(part, room - 1)})
        return children

    order = draw(st.permutations([f"leaf {number}" for number in range(count)]))
    sizes = draw(st.one_of(st.none(), st.sets(st.integers(1, count), min_size=1, max_size=5)))
    nested = split(list(order), draw(st.integers(1, 5)))
    return TreeSource(name, nested, None if sizes is None else tuple(sorted(sizes)))


@st.composite
def forests(draw: st.DrawFn) -> tuple[list[TreeSource], Forest]:
    count = draw(st.integers(2, 14))
    written = [draw(sources(count, name)) for name in ("one", "two")[: draw(st.integers(1, 2))]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return written, build_forest([f"leaf {number}" for number in range(count)], written)
        except ValueError as error:
            assume("no level lies between" not in str(error))
            raise


def written_paths(nested: Nested) -> dict[str, tuple[str, ...]]:
    """For each leaf the internal nodes from the top down that branch: an independent reading of the tree."""
    paths: dict[str, tuple[str, ...]] = {}

    def visit(children: Nested, above: tuple[str, ...]) -> None:
        entries = [children] if isinstance(children, dict) else children
        inner = [(name, below) for entry in entries if isinstance(entry, dict) for name, below in entry.items()]
        leaves = [entry for entry in entries if isinstance(entry, str)]
        kept = above[:-1] if len(inner) == 1 and not leaves else above
        for leaf in leaves:
            paths[leaf] = kept
        for name, below in inner:
            visit(below, (*kept, name))

    visit(nested, ())
    return paths


@FAST
@given(forests())
def test_every_level_is_a_partition_and_levels_nest(case: tuple[list[TreeSource], Forest]) -> None:
    _, forest = case
    leaves = set(range(forest.leaf_count))
    for tree in forest.trees:
        below = forest.leaf_cut
        for level in range(1, tree.depth + 1):
            cut = forest.cut(tree.name, level)
            groups = [{k for k in leaves if cut.of_leaf[k] == g} for g in range(len(cut.nodes))]
            assert set().union(*groups) == leaves
            assert sum(map(len, groups)) == len(leaves)
            assert [set(tree.leaves_below(node)) for node in cut.nodes] == groups
            assert 1 < len(groups) < len(below.nodes)
            finer = [{k for k in leaves if below.of_leaf[k] == g} for g in range(len(below.nodes))]
            assert all(any(small <= large for large in groups) for small in finer)
            assert cut.nodes == tuple(sorted(cut.nodes))
            below = cut
        for leaf in leaves:
            path = forest.path(tree.name, leaf)
            chain = (leaf, *forest.ancestors(tree.name, leaf))
            assert all(node in chain for node in path)


@FAST
@given(forests())
def test_ancestors_heights_and_distances_equal_a_reading_of_the_written_tree(
    case: tuple[list[TreeSource], Forest],
) -> None:
    written, forest = case
    for source in written:
        paths = written_paths(source.nested)
        full = {leaf: ("", *path, leaf) for leaf, path in paths.items()}
        for a, name_a in enumerate(forest.leaves):
            assert tuple(forest.names[n] for n in reversed(forest.ancestors(source.name, a))) == paths[name_a]
            for b, name_b in enumerate(forest.leaves):
                common = [x for x, y in zip(full[name_a], full[name_b], strict=False) if x == y]
                steps = len(full[name_a]) + len(full[name_b]) - 2 * len(common)
                depth = len(common)
                height = max(len(p) - depth for p in full.values() if p[:depth] == tuple(common))
                assert forest.distance(source.name, a, b) == steps
                assert forest.lca_height(source.name, a, b) == height


@FAST
@given(forests(), st.data())
def test_laws_of_the_lowest_common_ancestor(case: tuple[list[TreeSource], Forest], data: st.DataObject) -> None:
    _, forest = case
    tree = forest.trees[0]
    a, b, c = (data.draw(st.sampled_from(tree.nodes)) for _ in range(3))
    assert tree.lca(a, b) == tree.lca(b, a)
    assert tree.lca(a, a) == a
    assert tree.lca_height(a, b) == tree.lca_height(b, a) >= max(tree.height(a), tree.height(b))
    assert (tree.distance(a, b) == 0) == (a == b)
    assert tree.distance(a, c) <= tree.distance(a, b) + tree.distance(b, c)
    assert tree.lca_height(a, c) <= max(tree.lca_height(a, b), tree.lca_height(b, c))


@FAST
@given(forests())
def test_json_and_files_give_the_forest_back(case: tuple[list[TreeSource], Forest]) -> None:
    _, forest = case
    record = json.loads(json.dumps(forest_to_json(forest)))
    assert forest_from_json(record) == forest
    assert forest_from_json(record).fingerprint == forest.fingerprint
    with tempfile.TemporaryDirectory() as folder:
        paths = write_forest(forest, folder)
        again = read_forest(paths, forest.leaves)
    assert again == forest
    assert again.fingerprint == forest.fingerprint


@FAST
@given(forests())
def test_a_chosen_size_bounds_every_group(case: tuple[list[TreeSource], Forest]) -> None:
    written, forest = case
    for source, tree in zip(written, forest.trees, strict=True):
        for level in range(1, tree.depth + 1):
            groups = [len(tree.leaves_below(node)) for node in forest.cut(tree.name, level).nodes]
            if source.cut_sizes is not None:
                assert max(groups) <= source.cut_sizes[-1]
