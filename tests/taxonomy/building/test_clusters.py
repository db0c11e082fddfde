"""Clusters of embeddings whose groups are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from robustree.taxonomy import build_forest
from robustree.taxonomy.building.clusters import cluster_tree, name_clusters
from robustree.taxonomy.building.dendrogram import Linkage, central_first, chains_of, directions, merges_of

KINDS = {
    "bird": ["flamingo", "pelican", "woodpecker", "albatross"],
    "tree": ["oak", "elm", "willow", "maple"],
    "car": ["limousine", "minivan", "jeep", "taxi"],
}
CLASSES = [name for names in KINDS.values() for name in names]


def embeddings(seed: int = 0, spread: float = 0.05) -> NDArray[np.float64]:
    """Twelve points around three far directions, all in one narrow cone as texts are."""
    draw = np.random.default_rng(seed)
    centres = np.repeat(np.eye(3, 16), 4, axis=0)
    return 10 + centres + spread * draw.normal(size=(12, 16))


@pytest.mark.parametrize("linkage", ["ward", "average", "complete"])
@pytest.mark.parametrize("seed", range(3))
def test_planted_groups_are_found_and_named(linkage: Linkage, seed: int) -> None:
    source = cluster_tree(CLASSES, embeddings(seed), linkage=linkage)
    forest = build_forest(CLASSES, [source])
    tree = forest.trees[0]
    groups = {forest.names[n]: {forest.names[leaf] for leaf in tree.leaves_below(n)} for n in tree.nodes if n >= 12}
    assert {frozenset(names) for names in KINDS.values()} <= {frozenset(names) for names in groups.values()}
    assert groups["bird"] == set(KINDS["bird"])
    assert len({name.casefold() for name in forest.names}) == len(forest.names)
    assert all(len(tree.children(node)) > 1 for node in tree.nodes if node >= 12)
    assert source == cluster_tree(CLASSES, embeddings(seed), linkage=linkage)


def test_directions_are_centred_and_have_length_one() -> None:
    points = embeddings()
    found = directions(points)
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert np.allclose(found, directions(3 * points + 5))
    assert found.dtype == np.float64


def test_chains_follow_the_merges() -> None:
    points = np.array([[0.0], [1.0], [10.0], [12.0], [100.0]])
    assert chains_of(merges_of(points, "complete")) == [[5, 7, 8], [5, 7, 8], [6, 7, 8], [6, 7, 8], [8]]
    assert merges_of(points, "complete")[:, 2].tolist() == [1, 2, 12, 100]


def test_the_medoid_is_nearest_to_the_others() -> None:
    points = embeddings(spread=0.4)
    distances = squareform(pdist(points))
    members = [1, 4, 5, 9, 11]
    order = central_first(points, members)
    sums = [distances[member, members].sum() for member in order]
    assert sorted(order) == members and sums == sorted(sums)


def test_names_are_specific_unique_and_no_class() -> None:
    classes = ["dog", "poodle", "beagle", "wolf", "rose", "hammer", "xqzw", "yqzw", "zqzw", "vqzw"]
    names = name_clusters(classes, {1: [1, 0, 2], 2: [0, 1, 2, 3], 3: [4, 5], 4: [7, 6, 8], 5: [7, 6, 8, 9], 6: [6, 9]})
    assert names == {
        1: "kind of dog",
        2: "canine animal",
        3: "rose or hammer",
        4: "yqzw or similar",
        5: "xqzw or similar",
        6: "xqzw or vqzw",
    }


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (np.ones((12, 4)), "the model gives the same embedding to all classes"),
        (np.full((12, 4), np.nan), "the embedding of a class is not finite"),
        (np.ones((11, 4)), "11 embeddings were given for 12 classes"),
        (np.ones(12), r"embeddings have the shape \(12,\)"),
    ],
)
def test_bad_embeddings(points: NDArray[np.float64], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        cluster_tree(CLASSES, points)


def test_two_classes_leave_no_level() -> None:
    with pytest.raises(ValueError, match="the 2 classes leave no level between them and all"):
        cluster_tree(["dog", "cat"], np.eye(2))
