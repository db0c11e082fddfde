from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest
import torch
from torch import Tensor

from robustree.geometry import Poincare, lorentz
from robustree.methods.hierarchical import ancestors
from robustree.methods.lineage import Negatives, edges, generations, levels, tree_cuts
from robustree.taxonomy import Forest
from robustree.tree_model import Head

CPU = torch.device("cpu")
TREES = ["kind", "home"]
OPTIONS: tuple[Negatives, ...] = get_args(Negatives)
HEAD = Head(space=Poincare(curvature=1.5), scale=3.0)
BATCHES = {
    "mixed": [0, 3, 7, 0, 8, 2, 4],
    "single": [5],
    "one class": [2, 2, 2],
    "every class twice": [*range(9), *range(9)],
}


def paths(forest: Forest, tree: str) -> list[tuple[int, ...]]:
    return [forest.path(tree, leaf) for leaf in range(forest.leaf_count)]


def competing(forest: Forest, tree: str, level: int, negatives: Negatives, node: int) -> set[int]:
    """The negatives of `node` by the definition of docs/method.md, section 5, step 2, from explicit paths."""
    lines = paths(forest, tree)
    found = {line[level] for line in lines}
    for side, names in ((level - 1, ("lower", "both")), (level + 1, ("upper", "both"))):
        if negatives in names and 0 <= side < len(lines[0]):
            relatives = {line[side] for line in lines if line[level] == node}
            found |= {line[side] for line in lines} - relatives
    return found - {node}


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("negatives", OPTIONS)
def test_candidates_and_exclusions_are_the_negatives_of_the_definition(
    negatives: Negatives, tree: str, two_trees: Forest
) -> None:
    line = levels(two_trees, tree, negatives, True, CPU)
    assert len(line) == 1 + len(two_trees.tree(tree).levels)
    for number, level in enumerate(line):
        candidates = level.candidates.tolist()
        own = candidates[: len(level.excluded)]
        assert len(set(candidates)) == len(candidates)
        assert tuple(own) == two_trees.cut(tree, number).nodes
        assert [own[position] for position in level.of_leaf.tolist()] == [p[number] for p in paths(two_trees, tree)]
        for row, node in zip(level.excluded.tolist(), own, strict=True):
            kept = {other for other, out in zip(candidates, row, strict=True) if not out}
            assert kept - {node} == competing(two_trees, tree, number, negatives, node)
            assert node in kept


def test_hierarchical_negatives_by_hand(two_trees: Forest) -> None:
    # for bird at kind/1: its rivals, the leaves that are no birds, and food; animal is its parent
    level = levels(two_trees, "kind", "both", True, CPU)[1]
    names = [two_trees.names[node] for node in level.candidates.tolist()]
    kept = [name for name, out in zip(names, level.excluded[names.index("bird")].tolist(), strict=True) if not out]
    assert kept == ["mammal", "bird", "baked", "fruit", "dog", "cat", "fox", "bread", "rye", "pear", "fig", "food"]


@pytest.mark.parametrize("tree", TREES)
def test_weights_fall_by_1_over_levels(tree: str, two_trees: Forest) -> None:
    top = len(two_trees.tree(tree).levels)
    line = levels(two_trees, tree, "none", True, CPU)
    assert [level.weight for level in line] == pytest.approx([1 - number / (top + 1) for number in range(top + 1)])
    assert [level.weight for level in levels(two_trees, tree, "none", False, CPU)] == [1.0] * (top + 1)


@pytest.mark.parametrize("tree", TREES)
def test_edges_join_different_nodes_of_consecutive_levels(tree: str, two_trees: Forest) -> None:
    expected = {(upper, lower) for path in paths(two_trees, tree) for lower, upper in pairwise(path) if lower != upper}
    parents, children = edges(two_trees, tree, CPU)
    found = list(zip(parents.tolist(), children.tolist(), strict=True))
    assert len(found) == len(set(found)) and set(found) == expected
    assert [cut.level for cut in tree_cuts(two_trees, tree)] == list(range(len(paths(two_trees, tree)[0])))


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("batch", BATCHES)
def test_generations_average_the_children_that_are_present(batch: str, tree: str, two_trees: Forest) -> None:
    leaves = BATCHES[batch]
    draw = torch.Generator().manual_seed(1)
    points = 0.8 * torch.randn(len(leaves), 3, generator=draw, dtype=torch.float64)
    line = levels(two_trees, tree, "both", True, CPU)
    members = generations(line, torch.tensor(leaves), torch.float64)
    made = ancestors(points, members, HEAD)
    # by hand: a dictionary of nodes a level, each the Lorentz centroid of its children's points
    below: dict[object, Tensor] = {("image", i): points[i] for i in range(len(leaves))}
    above = {("image", i): leaf for i, leaf in enumerate(leaves)}  # any leaf under a member finds its parent
    for number, (member, averages) in enumerate(zip(members, made, strict=True), start=1):
        children: dict[int, list[object]] = {}
        for child, leaf in above.items():
            children.setdefault(paths(two_trees, tree)[leaf][number], []).append(child)
        nodes = two_trees.cut(tree, number).nodes
        assert [nodes[position] for position in member.nodes.tolist()] == sorted(children)
        for row, node in zip(averages, sorted(children), strict=True):
            lifted = lorentz.lift(torch.stack([below[child] for child in children[node]]), curvature=1.5)
            centre = lorentz.centroid(lifted, torch.ones(1, len(lifted)), curvature=1.5)
            assert torch.allclose(row, lorentz.drop(centre, curvature=1.5)[0], atol=1e-9)
        for image, row in enumerate(member.of_image.tolist()):
            assert nodes[member.nodes[row]] == paths(two_trees, tree)[leaves[image]][number]
        assert member.weights.unique().tolist() in ([1.0], [0.0, 1.0])
        assert (member.weights.sum(0) == 1).all()  # every member below has exactly one parent
        below = dict(zip(sorted(children), averages, strict=True))
        above = {node: next(k for k, p in enumerate(paths(two_trees, tree)) if p[number] == node) for node in children}
