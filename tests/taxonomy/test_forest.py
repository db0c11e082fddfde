from __future__ import annotations

import hashlib
from dataclasses import FrozenInstanceError, replace

import pytest

from robustree.taxonomy import Cut, Forest, Tree, TreeSource, build_forest

LEAVES = ("dog", "cat", "hen", "bread", "pear")
KIND = TreeSource(
    "kind",
    {"animal": {"mammal": ["dog", "cat"], "bird": ["hen"]}, "food": {"baked": ["bread"], "fruit": ["pear"]}},
)
HOME = TreeSource("home", ["dog", {"kept": ["cat", "hen", {"stored": ["pear", "bread"]}]}])


@pytest.fixture
def forest() -> Forest:
    return build_forest(LEAVES, [KIND, HOME])


def ids(forest: Forest, *names: str) -> tuple[int, ...]:
    return tuple(forest.names.index(name) for name in names)


def test_nodes_are_the_leaves_and_then_the_internal_nodes_of_each_tree(forest: Forest) -> None:
    # food has two children that hold one leaf each: both stay, because a leaf is no internal node
    assert forest.names[:5] == forest.leaves == LEAVES
    assert forest.names[5:] == ("animal", "mammal", "bird", "food", "baked", "fruit", "kept", "stored")
    assert forest.tree("kind").parents == (6, 6, 7, 9, 10, -1, 5, 5, -1, 8, 8, -1, -1)
    assert forest.tree("home").parents == (-1, 11, 11, 12, 12, -1, -1, -1, -1, -1, -1, -1, 11)
    assert forest.tree("home").nodes == (0, 1, 2, 3, 4, 11, 12)


def test_cuts_of_a_uniform_and_of_a_ragged_tree(forest: Forest) -> None:
    assert [cut.label for cut in forest.cuts()] == ["leaf", "kind/1", "kind/2", "home/1", "home/2"]
    assert forest.find_cut("kind/1") == Cut("kind", 1, ids(forest, "mammal", "bird", "baked", "fruit"), (0, 0, 1, 2, 3))
    assert forest.cut("kind", 2) == Cut("kind", 2, ids(forest, "animal", "food"), (0, 0, 0, 1, 1))
    assert forest.cut("home", 1) == Cut("home", 1, (0, 1, 2, *ids(forest, "stored")), (0, 1, 2, 3, 3))
    assert forest.cut("home", 2) == Cut("home", 2, (0, *ids(forest, "kept")), (0, 1, 1, 1, 1))
    assert forest.cut("home", 0) == forest.leaf_cut == Cut("", 0, (0, 1, 2, 3, 4), (0, 1, 2, 3, 4))


def test_paths_ancestors_heights_and_distances_by_hand(forest: Forest) -> None:
    dog, cat, hen, bread, pear = range(5)
    mammal, animal, food, kept, stored = ids(forest, "mammal", "animal", "food", "kept", "stored")
    assert forest.path("kind", dog) == (dog, mammal, animal)
    assert forest.path("home", dog) == (dog, dog, dog)
    assert forest.ancestors("home", pear) == (stored, kept)
    assert forest.ancestors("kind", animal) == ()
    assert [forest.height("home", node) for node in (dog, stored, kept)] == [0, 1, 2]
    assert [forest.lca_height("kind", dog, other) for other in (dog, cat, hen, bread)] == [0, 1, 2, 3]
    assert [forest.distance("kind", dog, other) for other in (dog, cat, hen, bread)] == [0, 2, 4, 6]
    assert forest.lca_height("home", bread, cat) == 2
    assert forest.lca_height("home", bread, dog) == 3
    assert forest.distance("home", bread, dog) == 4
    assert forest.distance("kind", mammal, food) == 3
    assert forest.tree("kind").lca(dog, mammal) == mammal
    assert forest.tree("kind").lca(dog, food) == -1


def test_an_explicit_root_and_the_implicit_root_give_the_same_distances() -> None:
    rooted = replace(KIND, nested={"thing": KIND.nested})
    with pytest.warns(UserWarning, match=r"'kind': level 3 is dropped because it is one group of all leaves"):
        tall = build_forest(LEAVES, [rooted]).tree("kind")
    flat = build_forest(LEAVES, [KIND]).tree("kind")
    for a in range(5):
        for b in range(5):
            assert tall.distance(a, b) == flat.distance(a, b)
            assert tall.lca_height(a, b) == flat.lca_height(a, b)
    assert tall.depth == flat.depth == 2


def test_the_size_rule_takes_the_first_node_small_enough_on_each_path() -> None:
    nested = {
        "living": [{"animal": ["a", "b", "c", {"fish": ["d", "e"]}]}, "f"],
        "thing": ["g", {"car": ["h", "i"]}],
    }
    forest = build_forest("abcdefghi", [TreeSource("t", nested, cut_sizes=(2, 3, 5, 6))])
    groups = [
        sorted(
            "".join(n for n, of in zip(forest.leaves, cut.of_leaf, strict=True) if of == g) for g in set(cut.of_leaf)
        )
        for cut in forest.cuts()[1:]
    ]
    assert groups == [
        ["a", "b", "c", "de", "f", "g", "hi"],
        ["a", "b", "c", "de", "f", "ghi"],
        ["abcde", "f", "ghi"],
        ["abcdef", "ghi"],
    ]


def test_a_chain_of_internal_nodes_becomes_its_lowest_node() -> None:
    nested = {
        "entity": {"object": {"animal": {"pet": ["dog", "cat"], "fowl": {"bird": ["hen"]}}}},
        "meal": ["bread", "pear"],
    }
    forest = build_forest(LEAVES, [TreeSource("t", nested, cut_sizes=(2, 3))])
    assert forest.names[5:] == ("animal", "pet", "bird", "meal")
    uniform = {"animal": {"mammal": ["dog", "cat"], "bird": ["hen"]}, "food": {"snack": ["bread", "pear"]}}
    forest = build_forest(LEAVES, [TreeSource("t", uniform)])
    assert [[forest.names[n] for n in cut.nodes] for cut in forest.cuts()[1:]] == [
        ["mammal", "bird", "snack"],
        ["animal", "snack"],
    ]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((1, 2), "the level of size 1 is dropped because it groups the leaves as the level below it does"),
        ((2, 3, 4), "the level of size 4 is dropped because it groups the leaves as the level below it does"),
    ],
)
def test_levels_that_say_nothing_new_are_dropped_with_a_warning(sizes: tuple[int, ...], message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        forest = build_forest(LEAVES, [replace(KIND, cut_sizes=sizes)])
    assert forest.tree("kind").depth == len(sizes) - 1


def test_a_tree_without_a_useful_level_is_refused() -> None:
    with (
        pytest.warns(UserWarning, match="is dropped"),
        pytest.raises(ValueError, match="no level lies between the leaves"),
    ):
        build_forest(LEAVES, [TreeSource("t", {"all": list(LEAVES)})])


@pytest.mark.parametrize("sizes", [(), (0, 2), (3, 2), (2, 2), (True, 2), (1.5,)])
def test_sizes_that_do_not_ascend_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="write ascending whole numbers of leaves"):
        build_forest(LEAVES, [replace(KIND, cut_sizes=sizes)])


def test_named_levels_and_their_errors() -> None:
    named = replace(KIND, levels=(("mammal",), ("animal", "food")))
    forest = build_forest(LEAVES, [named])
    assert forest.cut("kind", 1).of_leaf == (3, 3, 0, 1, 2)
    with pytest.raises(ValueError, match=r"'mamal' in levels is no internal node of the tree: did you mean 'mammal'\?"):
        build_forest(LEAVES, [replace(KIND, levels=(("mamal",),))])
    with pytest.raises(ValueError, match="one level lists 'mammal' and 'animal' above it"):
        build_forest(LEAVES, [replace(KIND, levels=(("mammal", "animal"),))])
    with pytest.raises(ValueError, match="level 2 does not nest"):
        build_forest(LEAVES, [replace(KIND, levels=(("animal",), ("mammal", "food")))])
    with pytest.raises(ValueError, match="both cut_sizes and levels are given"):
        build_forest(LEAVES, [replace(named, cut_sizes=(2,))])


def test_select_keeps_cuts_and_renumbers(forest: Forest) -> None:
    home = forest.select(["home"])
    assert home == build_forest(LEAVES, [HOME])
    assert home.find_cut("home/1").of_leaf == forest.find_cut("home/1").of_leaf
    assert forest.select(["home", "kind"]) == build_forest(LEAVES, [HOME, KIND])
    assert forest.select(["kind", "home"]).fingerprint == forest.fingerprint != home.fingerprint
    assert forest.select([]).cuts() == (forest.leaf_cut,)


def test_restrict_keeps_the_labels_of_cuts_and_the_order_of_classes(forest: Forest) -> None:
    part = forest.restrict(["pear", "dog", "hen"])
    assert part.leaves == ("dog", "hen", "pear")
    assert [cut.label for cut in part.cuts()] == [cut.label for cut in forest.cuts()]
    for cut in part.cuts():
        of_whole = forest.find_cut(cut.label)
        for leaf, name in enumerate(part.leaves):
            whole = of_whole.nodes[of_whole.of_leaf[forest.leaves.index(name)]]
            assert part.names[cut.nodes[cut.of_leaf[leaf]]] == forest.names[whole]
    assert "baked" not in part.names and "stored" in part.names  # bread is gone; pear is still stored
    assert forest.restrict(forest.leaves) == forest
    with pytest.raises(ValueError, match=r"'animal' is no class of this forest: give some of its 5 leaves\."):
        forest.restrict(["dog", "animal"])
    with pytest.raises(ValueError, match="no class was given"):
        forest.restrict([])


def test_the_fingerprint_is_the_sha256_of_the_content() -> None:
    # the spelling is fixed: another one would refuse every checkpoint that was written before
    forest = Forest(("a", "b", "c", "\u00e9"), 3, (Tree("t", (3, 3, -1, -1), ((3, 3, 2),)),))
    content = r'[["a","b","c","\u00e9"],3,[["t",[3,3,-1,-1],[[3,3,2]]]]]'
    assert forest.fingerprint == hashlib.sha256(content.encode()).hexdigest()


def test_types_are_frozen(forest: Forest) -> None:
    for thing, field in ((forest, "names"), (forest.trees[0], "parents"), (forest.leaf_cut, "nodes")):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, field, ())
    assert hash(forest) == hash(build_forest(LEAVES, [KIND, HOME]))


@pytest.mark.parametrize(
    ("parents", "levels", "message"),
    [
        ((2, 2, -1), (), "has no level above its leaves"),
        ((2, 2, 3, 2), ((2, 2),), "node 2 is its own ancestor"),
        ((2, 2, 1), ((2, 2),), "the parent of node 2 is 1, but a parent is -1 or an internal node in 2..2"),
        ((2, 9, -1), ((2, 2),), "the parent of node 1 is 9"),
        ((2, 2, -1, 2), ((2, 2),), "node 3 has no leaf below it"),
        ((2, 2, -1), ((2, 0),), "level 1 is no partition of the leaves: node 2"),
        ((2, 2, -1), ((2, 1),), "level 1 is no partition of the leaves: node 2"),
        ((2, 2, -1), ((2, 7),), "level 1 is no partition"),
        ((2, 2, -1), ((2, 2), (0, 1)), "level 2 does not nest: the node 0 of leaf 0 is not above its node 2"),
        ((2, 2, -1), ((2, 2), (2,)), "level 2 has 1 entries, not 2"),
        ((-1,), ((0, 1),), "has 2 leaves but only 1 parents"),
    ],
)
def test_bad_trees_are_refused(parents: tuple[int, ...], levels: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tree("t", parents, levels)


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "leaf", "all", "clean", ".hidden", "a b"])
def test_tree_names_that_break_labels_or_files_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a tree cannot be named"):
        Tree(name, (2, 2, -1), ((2, 2),))


def test_bad_forests_are_refused() -> None:
    tree = Tree("t", (2, 2, -1), ((2, 2),))
    assert Forest(("a", "b", "g"), 2, (tree,)).find_cut("t/1").nodes == (2,)
    cases: list[tuple[tuple[str, ...], int, tuple[Tree, ...], str]] = [
        (("a", "b"), 0, (), r"leaf_count is 0, but must be in 1..2"),
        (("a", " "), 2, (), "node 1 is named ' '"),
        (("a", "a"), 2, (), "'a' occurs twice among the leaves"),
        (("a", "b", "g"), 2, (), r"node 2 \('g'\) belongs to no tree"),
        (("a", "b", "c", "g"), 3, (tree,), "spans 2 leaves and 3 nodes, but the forest has 3 and 4"),
        (("a", "b", "g"), 2, (tree, tree), "'t' occurs twice among the trees"),
        (
            ("a", "b", "f", "g"),
            2,
            (Tree("t", (3, 3, -1, -1), ((3, 3),)),),
            "must be numbered from 2 without a gap",
        ),
        (
            ("a", "b", "x", "x"),
            2,
            (Tree("t", (2, 3, -1, -1), ((2, 3),)),),
            "'x' occurs twice among the nodes of t/1",
        ),
    ]
    for names, leaf_count, trees, message in cases:
        with pytest.raises(ValueError, match=message):
            Forest(names, leaf_count, trees)


def test_questions_about_what_is_not_there_name_the_alternatives(forest: Forest) -> None:
    with pytest.raises(ValueError, match="no tree 'knd' in this forest: its trees are kind, home"):
        forest.tree("knd")
    with pytest.raises(ValueError, match=r"no cut 'kind/3' in this forest: its cuts are leaf, kind/1"):
        forest.find_cut("kind/3")
    with pytest.raises(ValueError, match=r"tree 'kind' has no level 3: its levels are 0..2"):
        forest.cut("kind", 3)
    with pytest.raises(ValueError, match=r"5 is no leaf: leaves are 0..4"):
        forest.path("kind", 5)
    with pytest.raises(ValueError, match="node 12 is not in tree 'kind'"):
        forest.distance("kind", 0, 12)
