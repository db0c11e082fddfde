"""Normalised mutual information against closed forms and against a contingency table."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustree.taxonomy import TreeSource, build_forest
from robustree.taxonomy.comparing import compare_trees, normalised_mutual_information
from robustree.taxonomy.heat_map import draw_heat_map

SVG = "{http://www.w3.org/2000/svg}"
LEAVES = ("dog", "cat", "hen", "owl", "pear", "fig")
KIND = TreeSource(
    "kind", {"animal": {"mammal": ["dog", "cat"], "bird": ["hen", "owl"]}, "food": {"fruit": ["pear", "fig"]}}
)
PLACE = TreeSource("place", {"farm": ["dog", "cat", "hen"], "wood": ["owl", "pear", "fig"]})


def from_contingency(a: list[int], b: list[int]) -> float:
    """scikit-learn's definition with the arithmetic mean, from the table of joint counts."""
    table = np.zeros((max(a) + 1, max(b) + 1))
    np.add.at(table, (a, b), 1)
    joint = table / len(a)
    rows, columns = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    there = joint > 0
    mutual = (joint[there] * np.log(joint[there] / (rows @ columns)[there])).sum()
    mean = -sum((p[p > 0] * np.log(p[p > 0])).sum() for p in (rows, columns)) / 2
    return 1.0 if mean == 0 else mutual / mean


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40))
def test_it_is_the_information_of_the_contingency_table(pairs: list[tuple[int, int]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    value = normalised_mutual_information(a, b)
    assert value == pytest.approx(from_contingency(a, b), abs=1e-12)
    assert value == normalised_mutual_information(b, a)
    assert normalised_mutual_information(a, [5 - x for x in a]) == pytest.approx(1, abs=1e-12)
    assert 0 <= value <= 1


def test_closed_forms() -> None:
    assert normalised_mutual_information([0, 0, 1, 1], [0, 1, 0, 1]) == 0
    assert normalised_mutual_information([0, 0, 0, 0], [0, 0, 1, 1]) == 0
    assert normalised_mutual_information([3, 3], [4, 4]) == 1
    assert normalised_mutual_information([0, 0, 1, 1], [0, 1, 2, 3]) == pytest.approx(2 * math.log(2) / math.log(8))
    for pair in (([], []), ([0], [0, 1])):
        with pytest.raises(ValueError, match="cannot be compared: give the same leaves"):
            normalised_mutual_information(*pair)


def test_trees_are_compared_level_by_level() -> None:
    forest = build_forest(LEAVES, [KIND, PLACE])
    (pair,) = compare_trees(forest)
    place = [0, 0, 0, 1, 1, 1]
    expected = [[from_contingency([0, 0, 1, 1, 2, 2], place)], [from_contingency([0, 0, 0, 0, 1, 1], place)]]
    assert [list(row) for row in pair.levels] == [[pytest.approx(v) for v in row] for row in expected]
    assert pair.mean == pytest.approx(expected[0][0])
    (same,) = compare_trees(build_forest(LEAVES, [KIND, TreeSource("again", KIND.nested)]))
    assert same.mean == 1
    with pytest.raises(ValueError, match="a comparison needs at least two trees, not 1"):
        compare_trees(build_forest(LEAVES, [KIND]))


def test_the_heat_map_has_a_cell_for_every_pair_of_levels() -> None:
    forest = build_forest(LEAVES, [KIND, PLACE])
    root = ElementTree.fromstring(draw_heat_map(forest))
    titles = [rect.findtext(f"{SVG}title") for rect in root.iter(f"{SVG}rect")]
    cells = [title for title in titles if title]
    assert len(cells) == 9
    assert "kind/1 and kind/1: 1.000" in cells
    assert cells.count(f"kind/2 and place/1: {from_contingency([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]):.3f}") == 1
