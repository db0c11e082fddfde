"""The noun table, the choice of senses, and the trees that follow from them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

import robustree.taxonomy
from robustree.taxonomy import Forest, build_forest, parse_tree, shipped_tree_file, tree_to_json
from robustree.taxonomy.building.nouns import Nouns, wordnet_nouns
from robustree.taxonomy.building.senses import Sense, find_senses, known_senses, parse_senses, senses_to_text
from robustree.taxonomy.building.wordnet import candidate_names, is_readable, wordnet_tree
from robustree.taxonomy.sizing import partition

PACKAGE = Path(robustree.taxonomy.__file__).parents[1]
CLASSES = PACKAGE / "data" / "classes"
CRANE_BIRD, CRANE_LIFT = "n02012849", "n03126707"


@pytest.fixture(scope="module")
def nouns() -> Nouns:
    return wordnet_nouns()


def listed(name: str) -> list[str]:
    return (CLASSES / name).read_text(encoding="utf-8").splitlines()


def given_senses(data_set: str, nouns: Nouns) -> tuple[Sense, ...]:
    names = listed(f"{data_set}.txt")
    return find_senses(names, nouns, parse_senses("\n".join(listed(f"{data_set}.wnids.txt")), names, where="wnids"))


def test_the_table_holds_wordnet_3(nouns: Nouns) -> None:
    assert len(nouns.synsets) == 82_115
    assert sum(len(synset.lemmas) for synset in nouns.synsets.values()) == 146_347
    assert nouns.synsets["n02084071"].lemmas == ("dog", "domestic dog", "Canis familiaris")
    assert nouns.synsets["n02084071"].hypernyms == ("n02083346", "n01317541")
    assert nouns.chain("n02084071")[-1] == "n00001740"
    assert [w for w, synset in nouns.synsets.items() if not synset.hypernyms] == ["n00001740"]
    assert nouns.senses("Crane")[3:] == (CRANE_LIFT, CRANE_BIRD)
    assert nouns.singulars("geese") == ("goose",)
    assert nouns.singulars("berries") == ("berry",)
    assert nouns.singulars("glass boxes") == ()


def test_imagenet_paths(nouns: Nouns) -> None:
    wnids = listed("imagenet.wnids.txt")
    assert Counter(map(nouns.paths, wnids)) == {1: 696, 2: 278, 3: 17, 4: 5, 5: 4}
    assert not set(wnids) & {above for wnid in wnids for above in nouns.above(wnid)}


def forest_of(data_set: str) -> Forest:
    names = listed(f"{data_set}.txt")
    text = shipped_tree_file(data_set, "wordnet").read_text(encoding="utf-8")
    return build_forest(names, [parse_tree(text, names)])


@pytest.mark.parametrize(
    ("data_set", "levels", "inner"),
    [("imagenet", [1000, 756, 432, 204, 96, 39], 362), ("tiny_imagenet", [200, 166, 110, 67, 24, 19], 89)],
)
def test_the_shipped_trees_are_what_the_builder_makes(
    data_set: str, levels: list[int], inner: int, nouns: Nouns
) -> None:
    text = tree_to_json(wordnet_tree(given_senses(data_set, nouns)))
    assert text == shipped_tree_file(data_set, "wordnet").read_text(encoding="utf-8")
    forest = forest_of(data_set)
    assert [len(cut.nodes) for cut in forest.cuts()] == levels
    assert len(forest.names) - forest.leaf_count == inner
    assert json.loads(text)["cut_sizes"] == [round(levels[0] ** (n / 6)) for n in range(1, 6)]


def test_groups_of_the_shipped_tree_are_below_their_synset(nouns: Nouns) -> None:
    forest, wnids = forest_of("imagenet"), listed("imagenet.wnids.txt")
    tree = forest.trees[0]
    for name, wnid in (("bird of prey", "n01604330"), ("dog", "n02084071"), ("musical instrument", "n03800933")):
        node = forest.names.index(name, 1000)
        below = {leaf for leaf in range(1000) if wnid in nouns.chain(wnids[leaf])}
        assert set(tree.leaves_below(node)) == below and len(below) > 1


def test_most_imagenet_names_lead_to_their_synset(nouns: Nouns) -> None:
    names, wnids = listed("imagenet.txt"), listed("imagenet.wnids.txt")
    found = known_senses(names, nouns)
    assert len(names) - len(found) == 6
    right = sum(found[position] == wnid for position, wnid in enumerate(wnids) if position in found)
    assert right == 824


@pytest.mark.parametrize(
    ("name", "looked_up", "wnid"),
    [
        ("crane (bird)", "crane (bird)", CRANE_BIRD),
        ("crane bird", "crane bird", CRANE_BIRD),
        ("crane=n02012849", "", CRANE_BIRD),
        ("coffeemaker", "coffeemaker", "n03063338"),
        ("red wooden chair", "wooden chair", "n03001627"),
        ("cup of coffee", "coffee", "n07929519"),
        ("geese", "geese", "n01855672"),
        ("kite (bird of prey)", "kite (bird of prey)", "n01608432"),
    ],
)
def test_names_are_looked_up(name: str, looked_up: str, wnid: str, nouns: Nouns) -> None:
    (sense, _) = find_senses([name, "n02084071"], nouns)
    assert sense.wnid == wnid
    if name != "red wooden chair":
        assert sense.looked_up == looked_up
    else:
        assert sense.looked_up == "chair"


def test_the_other_classes_decide_between_senses(nouns: Nouns) -> None:
    birds = ["flamingo", "pelican", "woodpecker", "albatross", "crane"]
    machines = ["bulldozer", "tower crane=n03126707", "forklift", "lathe", "crane"]
    assert find_senses(birds, nouns)[-1].wnid == CRANE_BIRD
    assert find_senses(machines, nouns)[-1].wnid == CRANE_LIFT
    assert CRANE_LIFT in find_senses(birds, nouns)[-1].others


def test_senses_are_written_as_they_are_read(nouns: Nouns) -> None:
    names = ["crane", "dog", "pair of cherries"]
    senses = find_senses(names, nouns)
    text = senses_to_text(senses, nouns)
    assert parse_senses(text, names, where="text") == {sense.name: sense.wnid for sense in senses}
    assert "looked up 'cherries'" in text and "not n10114209 frump (unpleasant woman)" in text
    assert parse_senses("n02012849\n\nn02084071\n# note\nn00021939", names, where="text")["dog"] == "n02084071"


@pytest.mark.parametrize(
    ("classes", "given", "message"),
    [
        (["dog", "gyroscopicon"], {}, r"no noun for the class 'gyroscopicon' \(nearest: .*gyroscop"),
        (["dog", "xqzw", "qqqq"], {}, r"'xqzw' \(nearest: none looks like it\); also missing: 'qqqq': give each"),
        (["dog", "cat"], {"dgo": CRANE_BIRD}, "'dgo', which is no class: did you mean 'dog'"),
        (["dog", "cat"], {"dog": "n99999999"}, "n99999999, given for 'dog', is no noun of WordNet 3.0"),
        (["n99999999", "cat"], {}, "n99999999, given for 'n99999999', is no noun"),
        (["dog", "n02084071"], {}, "the class 'dog' occurs twice"),
    ],
)
def test_classes_that_cannot_be_found(classes: list[str], given: dict[str, str], message: str, nouns: Nouns) -> None:
    with pytest.raises(ValueError, match=message):
        find_senses(classes, nouns, given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crane", "senses.txt, line 1: 'crane' is no sense: write a line such as crane=n02012849"),
        ("\ndog=n0208", "senses.txt, line 2: 'dog=n0208' is no sense"),
        ("dog=n02084071\ndog=n02084071", "line 2: 'dog' occurs twice"),
        ("n02084071", "1 wnids for 2 classes"),
    ],
)
def test_bad_senses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_senses(text, ["dog", "cat"], where="senses.txt")


def test_a_class_above_another_is_a_leaf_in_its_own_group(nouns: Nouns) -> None:
    names = ["dog", "poodle", "beagle", "tabby", "oak", "elm", "projectile=n04008634", "missile=n04008634"]
    source = wordnet_tree(find_senses(names, nouns), levels=3)
    forest = build_forest([name.partition("=")[0] for name in names], [source])
    dogs = next(n for n in forest.trees[0].nodes if forest.names[n] == "kind of dog")
    assert {forest.names[n] for n in forest.trees[0].leaves_below(dogs)} == {"dog", "poodle", "beagle"}
    assert forest.trees[0].lca_height(6, 7) == 1
    assert all(len(forest.trees[0].children(n)) > 1 for n in forest.trees[0].nodes if n >= len(names))


def test_names_of_nodes(nouns: Nouns) -> None:
    assert candidate_names(nouns.synsets["n02370806"])[:3] == ("hoofed mammal", "kind of hoofed mammal", "ungulate")
    assert candidate_names(nouns.synsets["n04571292"])[0] == "free weight"  # "weight" is first of all a quantity
    assert not is_readable("n01886756") and is_readable("n01861778")
    naming = json.loads((PACKAGE / "taxonomy" / "building" / "wordnet30" / "naming.json").read_text(encoding="utf-8"))
    assert naming["left_out"] == {wnid: nouns.synsets[wnid].lemmas[0] for wnid in naming["left_out"]}
    assert not set(naming["names"]) - set(nouns.synsets) and not set(naming["names"]) & set(naming["left_out"])


def test_too_few_classes_or_levels(nouns: Nouns) -> None:
    with pytest.raises(ValueError, match="WordNet puts no two of the 2 classes into a group of their own"):
        wordnet_tree(find_senses(["dog", "idea"], nouns))
    with pytest.raises(ValueError, match="0 levels were asked for"):
        wordnet_tree(find_senses(["dog", "cat", "oak"], nouns), levels=0)
    first = build_forest(["dog", "cat", "oak"], [wordnet_tree(find_senses(["dog", "cat", "oak"], nouns), levels=1)])
    assert partition(first.trees[0].levels[0]) == (0, 0, 2)
