"""What holds for every shipped tree, and what each official tree must agree with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

import robustree.taxonomy
from robustree.taxonomy import (
    EMOJI_TREES,
    SHIPPED_TREES,
    Forest,
    draw_tree,
    outline,
    shipped_forest,
    shipped_tree_file,
)

PACKAGE = Path(robustree.taxonomy.__file__).parents[1]
TREES = [(data_set, tree) for data_set, trees in SHIPPED_TREES.items() for tree in trees]
# Words of WordNet's upper levels that say nothing in a caption, and names for what is left over.
FORBIDDEN = {
    *("entity", "whole", "matter", "instrumentality", "instrumentation", "artifact", "abstraction", "organism"),
    *("placental", "ungulate", "conveyance", "unit", "miscellaneous", "misc", "various", "stuff", "unknown"),
}
# The embedded model was trained with the names of the emoji trees, which are therefore kept as they are.
WORDS = {"emoji": 10}
# The annotation of the data set has groups of one class here.
OFFICIAL_SINGLES = {("cars", "make"), ("aircraft", "official")}

Node = dict[str, "Node"] | list["str | Node"]


def classes(data_set: str) -> list[str]:
    if data_set == "emoji":
        content = json.loads((PACKAGE / "data" / "quickstart" / "classes.json").read_text(encoding="utf-8"))
        return [entry["name"] for entry in content["classes"]]
    return (PACKAGE / "data" / "classes" / f"{data_set}.txt").read_text(encoding="utf-8").splitlines()


def written_leaves(node: Node) -> Iterator[str]:
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, str):
            yield child
        else:
            yield from written_leaves(child)


def groups(data_set: str, tree: str, level: int = 1) -> dict[str, set[str]]:
    """The classes of every node of a level, by the node's name."""
    forest = shipped_forest(data_set, classes(data_set), [tree])
    found: dict[str, set[str]] = {}
    for leaf, node in enumerate(forest.trees[0].levels[level - 1]):
        found.setdefault(forest.names[node], set()).add(forest.leaves[leaf])
    return found


def test_the_list_names_every_file_of_the_library() -> None:
    library = PACKAGE / "taxonomy" / "library"
    assert sorted(TREES) == sorted((path.parent.name, path.stem) for path in library.glob("*/*.json"))
    lists = {path.stem for path in (PACKAGE / "data" / "classes").glob("*.txt")}
    assert SHIPPED_TREES.keys() - {"emoji"} <= lists


@pytest.mark.parametrize(("data_set", "name"), TREES)
def test_a_tree_holds_each_class_once_and_every_level_is_a_partition(data_set: str, name: str) -> None:
    leaves = classes(data_set)
    content = json.loads(shipped_tree_file(data_set, name).read_text(encoding="utf-8"))
    assert sorted(written_leaves(content["tree"])) == sorted(leaves)
    assert content["name"] == name and content["about"] and content["licence"]
    forest = shipped_forest(data_set, leaves, [name])
    assert forest.leaves == tuple(leaves)
    counts = [len(leaves)]
    for level in range(1, forest.trees[0].depth + 1):
        cut = forest.cut(name, level)
        assert sum(len(forest.trees[0].leaves_below(node)) for node in cut.nodes) == len(leaves)
        counts.append(len(cut.nodes))
    assert counts == sorted(set(counts), reverse=True) and counts[-1] > 1


@pytest.mark.parametrize(("data_set", "name"), TREES)
def test_names_of_nodes_read_well(data_set: str, name: str) -> None:
    forest = shipped_forest(data_set, classes(data_set), [name])
    tree = forest.trees[0]
    inner = [node for node in tree.nodes if node >= forest.leaf_count]
    folded = Counter(text.casefold() for text in forest.names)
    for node in inner:
        text = forest.names[node]
        assert folded[text.casefold()] == 1, f"{text!r} names two nodes, or a node and a class"
        assert len(text.split()) <= WORDS.get(data_set, 5)
        assert not FORBIDDEN & set(text.casefold().replace(",", "").split())
        assert not text.startswith(("other ", "a ", "an ", "the "))
        assert text == text.strip() and not text.endswith(".")
        if (data_set, name) not in OFFICIAL_SINGLES:
            assert len(tree.children(node)) > 1, f"{text!r} has one child"


def test_pcam_has_no_level_between_two_classes_and_all() -> None:
    forest = shipped_forest("pcam", classes("pcam"))
    assert forest.trees == () and [cut.label for cut in forest.cuts()] == ["leaf"]


def test_cifar100_superclasses_are_twenty_of_five() -> None:
    found = groups("cifar100", "official")
    assert [len(members) for members in found.values()] == [5] * 20
    assert found["special vehicle"] == {"lawn mower", "rocket", "streetcar", "tank", "tractor"}
    assert found["large natural outdoor scene"] == {"cloud", "forest", "mountain", "plain", "sea"}


def test_aircraft_has_70_families_of_30_manufacturers() -> None:
    families, makers = groups("aircraft", "official", 1), groups("aircraft", "official", 2)
    assert (len(families), len(makers)) == (70, 30)
    assert families["Airbus A320 family aircraft"] == {"A318", "A319", "A320", "A321"}
    assert (
        makers["Boeing aircraft"] >= {"707-320", "Boeing 717", "777-300"} and "MD-80" not in makers["Boeing aircraft"]
    )


def test_the_make_of_a_car_begins_its_name() -> None:
    found = groups("cars", "make")
    assert len(found) == 49
    for make, members in found.items():
        assert all(car.startswith(make.removesuffix(" car") + " ") for car in members)


@pytest.mark.parametrize(
    ("word", "group"),
    [
        ("Sedan", "sedan car"),
        ("Coupe", "coupe car"),
        ("Convertible", "convertible car"),
        ("Hatchback", "hatchback car"),
        ("Minivan", "minivan"),
        ("Cab", "pickup truck"),
    ],
)
def test_the_body_of_a_car_is_what_its_name_says(word: str, group: str) -> None:
    members = groups("cars", "body")[group]
    # "Phantom Drophead Coupe Convertible": the last word is the type, the one before belongs to the model.
    named = {car for car in classes("cars") if car.split()[-2] == word}
    assert named and named <= members


def test_a_scene_with_a_setting_in_its_name_stands_there() -> None:
    tops = groups("sun397", "setting", 2)
    for top, members in tops.items():
        for scene in members:
            # Caves are natural whether or not the camera stands inside.
            assert not scene.startswith("indoor ") or top == "indoor scene" or scene == "indoor cavern"
            assert not scene.startswith("outdoor ") or top == "man-made outdoor scene"


def test_pets_are_12_cats_and_25_dogs() -> None:
    assert {name: len(members) for name, members in groups("pets", "species", 2).items()} == {
        "pet cat": 12,
        "pet dog": 25,
    }


@pytest.mark.parametrize("name", [name for name in SHIPPED_TREES["tiny_imagenet"] if name != "wordnet"])
def test_tiny_imagenet_never_parts_what_an_imagenet_group_joins(name: str) -> None:
    tiny = shipped_forest("tiny_imagenet", classes("tiny_imagenet"), [name])
    whole = shipped_forest("imagenet", classes("imagenet"), [name])
    place = [whole.leaves.index(leaf) for leaf in tiny.leaves]
    assert tiny.trees[0].depth == whole.trees[0].depth
    for small, large in zip(tiny.trees[0].levels, whole.trees[0].levels, strict=True):
        for a, b in combinations(range(tiny.leaf_count), 2):
            assert large[place[a]] != large[place[b]] or small[a] == small[b]


def _drawn_once(forest: Forest, name: str) -> None:
    assert outline(forest, name).startswith(f"{name} ({forest.leaf_count} - ")
    nodes = {node for leaf in range(forest.leaf_count) for node in forest.path(name, leaf)}
    assert draw_tree(forest, name).count('class="wedge"') == len(nodes)


@pytest.mark.parametrize("data_set", ["emoji", "aircraft", "imagenet"])
def test_trees_can_be_drawn(data_set: str) -> None:
    forest = shipped_forest(data_set, classes(data_set))
    assert tuple(tree.name for tree in forest.trees) == SHIPPED_TREES[data_set]
    for name in SHIPPED_TREES[data_set]:
        _drawn_once(forest, name)


def test_trees_can_be_chosen() -> None:
    every = shipped_forest("emoji", classes("emoji"))
    assert tuple(tree.name for tree in every.trees) == EMOJI_TREES
    assert shipped_forest("emoji", classes("emoji"), ["size", "unicode"]) == every.select(["size", "unicode"])


def test_other_classes_are_refused_with_file_and_line() -> None:
    with pytest.raises(ValueError, match=r"^emoji/unicode\.json: tree 'unicode', line \d+: the leaf "):
        shipped_forest("emoji", ["unicorn", *classes("emoji")[1:]], ["unicode"])


def test_what_is_not_shipped_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^no trees of 'mnist' are shipped: the data sets are emoji, imagenet, "):
        shipped_forest("mnist", ["0", "1"], [])
    with pytest.raises(ValueError, match=r"^there is no pcam tree 'kind': the shipped trees are none\.$"):
        shipped_tree_file("pcam", "kind")
    with pytest.raises(ValueError, match=r"^there is no imagenet tree 'colour': the shipped trees are kind, "):
        shipped_forest("imagenet", classes("imagenet"), ["colour"])
