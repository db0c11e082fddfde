from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustree.taxonomy import (
    Forest,
    Tree,
    build_forest,
    forest_from_json,
    forest_to_json,
    leaves_of,
    parse_tree,
    read_forest,
    read_tree,
    shipped_forest,
    write_forest,
)
from robustree.taxonomy.located_json import MAX_BYTES

LEAVES = ("dog", "cat", "hen", "pear")
GOOD = """{
 "name": "kind", "about": "by kind", "licence": "CC0",
 "cut_sizes": [2, 3],
 "tree": {
  "animal": [
   {"mammal": ["dog", "cat"]},
   "hen"],
  "food": ["pear"]}
}"""
EDGES = """{"name": "kind", "cut_sizes": [2, 3], "parents": {
 "mammal": "animal",
 "dog": "mammal",
 "cat": "mammal",
 "animal": null,
 "hen": "animal",
 "pear": "food"
}}"""


def test_a_file_gives_its_tree_and_its_leaves(tmp_path: Path) -> None:
    path = tmp_path / "kind.json"
    path.write_text("\ufeff" + GOOD, encoding="utf-8")
    source = read_tree(path, LEAVES)
    assert (source.name, source.about, source.licence, source.cut_sizes) == ("kind", "by kind", "CC0", (2, 3))
    assert source.nested == {"animal": [{"mammal": ["dog", "cat"]}, "hen"], "food": ["pear"]}
    assert leaves_of(path) == ("dog", "cat", "hen", "pear")
    forest = read_forest([path], leaves_of(path))
    assert forest.cut("kind", 1).of_leaf == (1, 1, 0, 2)
    assert all(type(name) is str for name in forest.names)


def test_the_edge_list_gives_the_same_partitions() -> None:
    nested = build_forest(LEAVES, [parse_tree(GOOD, LEAVES)])
    edges = build_forest(LEAVES, [parse_tree(EDGES, LEAVES)])
    assert sorted(edges.names) == sorted(nested.names)
    for a in range(4):
        for b in range(4):
            assert edges.distance("kind", a, b) == nested.distance("kind", a, b)
    groups = [
        {frozenset(k for k in range(4) if cut.of_leaf[k] == g) for g in range(len(cut.nodes))}
        for forest in (nested, edges)
        for cut in forest.cuts()
    ]
    assert groups[:3] == groups[3:]


def test_a_file_may_name_the_nodes_of_its_levels() -> None:
    named = GOOD.replace('"cut_sizes": [2, 3]', '"levels": [["mammal"], ["animal", "food"]]')
    forest = build_forest(LEAVES, [parse_tree(named, LEAVES)])
    assert [[forest.names[n] for n in cut.nodes] for cut in forest.cuts()[1:]] == [
        ["hen", "pear", "mammal"],
        ["animal", "food"],
    ]


BAD: dict[str, tuple[str, str]] = {
    "syntax": (GOOD.replace('"hen"],', '"hen"]'), "line 8, column 3: not JSON (Expecting ',' delimiter)"),
    "constant": (GOOD.replace("[2, 3]", "[2, NaN]"), "not JSON (the constant NaN)"),
    "no object": ("[]", 'the file holds no JSON object: write {"name": ..., "tree": ...}.'),
    "no name": (GOOD.replace('"name": "kind", ', ""), 'the tree has no name: add "name"'),
    "name of a wrong type": (GOOD.replace('"kind"', "3"), "'name', line 2 is 3, but must be a string"),
    "name of a bad form": (GOOD.replace('"kind"', '"my kind"'), "a tree cannot be named 'my kind'"),
    "unknown key": (
        GOOD.replace("cut_sizes", "cutsizes"),
        "'cutsizes', line 3 is unknown: did you mean 'cut_sizes'?",
    ),
    "sizes of a wrong type": (
        GOOD.replace("[2, 3]", '"2"'),
        "'cut_sizes', line 3 is '2', but must be a list",
    ),
    "levels of a wrong type": (
        GOOD.replace('"cut_sizes": [2, 3]', '"levels": [2]'),
        "'levels', line 3 is [2], but",
    ),
    "levels are no list": (GOOD.replace('"cut_sizes": [2, 3]', '"levels": 2'), "'levels', line 3 is 2, but"),
    "no tree": ('{"name": "kind"}', 'the file needs "tree" or "parents"'),
    "tree and parents": (
        GOOD.replace('"about"', '"parents": {}, "about"'),
        'the file needs "tree" or "parents"',
    ),
    "unknown class": (
        GOOD.replace('"dog"', '"dgo"'),
        "line 6: the leaf 'dgo' is no class of the model: did you mean 'dog'?",
    ),
    "missing leaf": (GOOD.replace('["dog", "cat"]', '["dog"]'), "the leaf 'cat' is missing"),
    "missing leaves": (
        GOOD.replace('{"mammal": ["dog", "cat"]},', ""),
        "the leaf 'dog' (and 1 more) is missing",
    ),
    "class with children": (
        GOOD.replace('["pear"]', '{"pear": ["hen"]}').replace('"hen"],', "{}],"),
        "line 8: the class 'pear' is no leaf but has children",
    ),
    "duplicate leaf": (GOOD.replace('"pear"]', '"pear", "cat"]'), "line 8: duplicate leaf 'cat'"),
    "two parents": (
        GOOD.replace('"food": [', '"food": [{"mammal": ["dog"]}, '),
        "line 8: 'mammal' has two parents",
    ),
    "cycle": (
        GOOD.replace('["dog", "cat"]', '["dog", {"animal": ["cat"]}]'),
        "line 6: cycle: 'animal' is below itself",
    ),
    "duplicate key": (
        GOOD.replace('"food"', '"animal"'),
        "line 8: the key 'animal' occurs twice in one object",
    ),
    "empty leaf name": (GOOD.replace('"hen"]', '"hen", " "]'), "line 7: a node below 'animal' is named ' '"),
    "empty node name": (GOOD.replace('"food"', '""'), "line 8: a node below 'kind' is named ''"),
    "control character": (
        GOOD.replace('"hen"', '"h\\u0000n"'),
        "line 7: the name 'h\\x00n' holds a control character",
    ),
    "lone surrogate": (
        GOOD.replace('"hen"', '"h\\ud800n"'),
        "line 7: the name 'h\\ud800n' holds a control character",
    ),
    "number as a leaf": (
        GOOD.replace('"hen"', "7"),
        "line 5: 7 below 'animal' is neither a leaf name nor an object",
    ),
    "list in a list": (
        GOOD.replace('"hen"', '["hen"]'),
        "line 5: ['hen'] below 'animal' is neither a leaf name",
    ),
    "children of a wrong type": (
        GOOD.replace('["pear"]', '"pear"'),
        "line 8: the children of 'food' are 'pear', but",
    ),
    "no children": (GOOD.replace('["pear"]', "[{}]"), "line 8: 'food' has no children"),
    "empty tree": ('{"name": "kind", "tree": {}}', "tree 'kind': 'kind' has no children"),
    "edge cycle": (EDGES.replace("null", '"mammal"'), "line 2: cycle: mammal -> animal -> mammal"),
    "own parent": (EDGES.replace('"hen": "animal"', '"hen": "hen"'), "line 6: cycle: hen -> hen"),
    "two edges": (
        EDGES.replace('"pear": "food"', '"pear": "food", "dog": "animal"'),
        "line 7: 'dog' has two parents, 'mammal' and 'animal': remove one of the two",
    ),
    "two parents in a list": (
        EDGES.replace('"dog": "mammal"', '"dog": ["mammal", "pet"]'),
        "line 3: 'dog' has 2 parents ['mammal', 'pet']: keep one of them",
    ),
    "parent of a wrong type": (
        EDGES.replace('"food"', "1"),
        "line 7: the parent of 'pear' is 1: write the name",
    ),
    "parents of a wrong type": (
        '{"name": "kind", "parents": ["dog"]}',
        "parents is ['dog'], but must be an object",
    ),
    "unknown class in edges": (EDGES.replace('"hen"', '"hn"'), "line 6: the leaf 'hn' is no class"),
    "deep": (
        GOOD.replace('["pear"]', '{"a":' * 200 + '["pear"]' + "}" * 200),
        "line 8: the nesting is deeper than 64",
    ),
    "rather deep": (
        GOOD.replace('["pear"]', "".join(f'{{"n{n}":' for n in range(70)) + '["pear"]' + "}" * 70),
        "line 8: more than 64 nodes lie above one another",
    ),
    "deep edges": (
        EDGES.replace('"pear": "food"', '"pear": "n0",' + ",".join(f'"n{n}": "n{n + 1}"' for n in range(70))),
        "line 7: 'n5' lies below more than 64 nodes",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_tree_gives_one_sentence_with_its_line(name: str, tmp_path: Path) -> None:
    text, message = BAD[name]
    assert text not in (GOOD, EDGES)
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        read_tree(path, LEAVES)
    told = str(caught.value)
    assert message in told
    assert told.startswith(str(path))
    assert "\n" not in told
    assert told.endswith((".", "?"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json: the file cannot be read \(No such file"):
        read_tree(tmp_path / "none.json", LEAVES)
    with pytest.raises(ValueError, match="the file cannot be read"):
        leaves_of(tmp_path)
    latin = tmp_path / "latin.json"
    latin.write_bytes(GOOD.replace("hen", "h\u00e9n").encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.json, line 7: the file is not UTF-8 text"):
        read_tree(latin, LEAVES)
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match=r"large\.json: the file has 33554433 bytes"):
        read_tree(large, LEAVES)


def test_errors_that_appear_while_growing_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sizes.json"
    path.write_text(GOOD.replace("[2, 3]", "[3, 2]"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"sizes\.json: tree 'kind': cut_sizes is \[3, 2\]"):
        read_forest([path], LEAVES)
    path.write_text(GOOD.replace('["dog", "cat"]', '["dog", "dog"]'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"sizes\.json: tree 'kind', line 6: duplicate leaf 'dog'"):
        leaves_of(path)


def test_written_files_are_read_back(tmp_path: Path) -> None:
    forest = build_forest(LEAVES, [parse_tree(GOOD, LEAVES)])
    paths = write_forest(forest, tmp_path / "new")
    assert [path.name for path in paths] == ["kind.json"]
    assert read_forest(paths, LEAVES) == forest
    shuffled = Forest(("a", "b", "c", "x", "y"), 3, (Tree("t", (4, 4, 3, -1, -1), ((4, 4, 3),)),))
    assert forest_from_json(forest_to_json(shuffled)) == shuffled
    chain = Forest(("a", "b", "c", "x", "y"), 3, (Tree("t", (4, 4, -1, -1, 3), ((3, 3, 2),)),))
    with pytest.raises(ValueError, match="the forest is not in the form that tree files describe"):
        write_forest(chain, tmp_path)


def test_a_changed_record_is_refused() -> None:
    forest = build_forest(LEAVES, [parse_tree(GOOD, LEAVES)])
    record = json.loads(json.dumps(forest_to_json(forest)))
    tree = record["trees"][0]
    changes: list[tuple[object, str]] = [
        ([], "the record of a forest has list, but needs exactly the keys"),
        ({**record, "more": 1}, "needs exactly the keys"),
        ({**record, "version": 2}, "version 2: this release reads version 1"),
        ({**record, "names": ["ox", *record["names"][1:]]}, "the record was changed, so write it again"),
        ({**record, "names": "abc"}, "names is a str in the record of a forest, but must be a list"),
        ({**record, "names": [1, *record["names"][1:]]}, "1 is a name in the record of a forest"),
        ({**record, "leaf_count": True}, "leaf_count holds True"),
        ({**record, "trees": [{**tree, "parents": [1.0]}]}, "parents holds 1.0"),
        ({**record, "trees": [{**tree, "parents": [-1] * len(tree["parents"])}]}, "level 1 is no partition"),
    ]
    for changed, message in changes:
        with pytest.raises(ValueError, match=message):
            forest_from_json(changed)


def test_an_emoji_tree_that_is_not_shipped_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no emoji tree 'colour': the shipped trees are unicode, wordnet"):
        shipped_forest("emoji", LEAVES, ["colour"])
