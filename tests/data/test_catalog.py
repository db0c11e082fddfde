"""`open_data`: the embedded set, the embedded set under own trees, and a folder with its tree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from robustree.data import CATALOG, open_data, quickstart_classes
from robustree.taxonomy import EMOJI_TREES, leaves_of

TREE = {
    "name": "mine",
    "tree": {
        "animal": {"pet": ["dog", "hot dog"], "wild": ["owl"]},
        "food": {"fruit": ["pear", "fig"], "baked": ["rye"]},
    },
}
SIX = ("dog", "hot dog", "owl", "pear", "fig", "rye")


@pytest.fixture
def tree_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(TREE))
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number, name in enumerate(("rye", "hot_dog", "dog", "owl")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for position in range(2):
            picture = Image.new("RGB", (20, 30), (40 * number, 100 * position, 7))
            picture.save(tmp_path / "pictures" / name / f"{position}.png")
    return tmp_path / "pictures"


def test_every_embedded_record_opens() -> None:
    for name in (record.name for record in CATALOG.values() if record.embedded):
        data = open_data(name)
        forest, training, audit = data.forest(None), data.training(16), data.audit(16)
        assert data.name == name
        assert audit.pixels[:].shape == (len(audit.ids), 3, 16, 16)
        assert int(training.leaves.max()) < forest.leaf_count > int(audit.leaves.max())
        assert len(set(audit.ids)) == len(audit.ids)
        images = training.images(torch.arange(3), torch.Generator().manual_seed(0))
        assert images.shape == (3, 3, 16, 16)


def test_the_embedded_set_knows_its_five_trees_and_gives_some() -> None:
    data = open_data("emoji")
    assert tuple(tree.name for tree in data.forest(None).trees) == EMOJI_TREES
    assert data.forest(("place",)).leaves == quickstart_classes()
    assert [tree.name for tree in data.forest(("size", "place")).trees] == ["size", "place"]
    with pytest.raises(ValueError, match="no tree 'colour'"):
        data.forest(("colour",))


def test_sets_of_imagenet_classes_take_its_trees() -> None:
    whole, renditions, sketches = (CATALOG[name] for name in ("imagenet", "imagenet_r", "imagenet_sketch"))
    assert sketches.classes == whole.classes and sketches.forest(("kind",)) == whole.forest(("kind",))
    assert renditions.trees == whole.trees
    part = renditions.forest(("kind", "wordnet"))
    assert part.leaves == renditions.classes and len(part.leaves) == 200
    cut, above = part.find_cut("kind/2"), whole.forest(("kind",)).find_cut("kind/2")
    names = whole.forest(("kind",)).names
    for leaf, name in enumerate(part.leaves):
        assert part.names[cut.nodes[cut.of_leaf[leaf]]] == names[above.nodes[above.of_leaf[whole.classes.index(name)]]]


def test_training_artists_are_never_audited() -> None:
    data = open_data("emoji")
    styles = {name.split("/")[0] for name in data.audit(8).ids}
    assert styles == {"twemoji", "emojione"}
    assert not styles & {name.split("/")[0] for name in data.training(8).drawings.ids}  # type: ignore[attr-defined]


def test_the_embedded_set_under_an_own_tree(tmp_path: Path) -> None:
    names = quickstart_classes()
    half = {"name": "halves", "tree": {"first": list(names[:131]), "second": list(names[131:])}}
    (tmp_path / "halves.json").write_text(json.dumps(half))
    data = open_data("emoji", tree_files=(tmp_path / "halves.json",))
    assert data.forest(None).leaves == names
    assert [cut.label for cut in data.forest(None).cuts()] == ["leaf", "halves/1"]


def test_a_folder_with_a_tree(pictures: Path, tree_file: Path) -> None:
    """The tree says which classes there are; the folder need not show all of them."""
    data = open_data(str(pictures), tree_files=(tree_file,))
    forest = data.forest(None)
    assert forest.leaves == leaves_of(tree_file) == SIX
    audit = data.audit(12)
    assert audit.pixels[:].shape == (8, 3, 12, 12)
    assert dict(zip(audit.ids, audit.leaves.tolist(), strict=True)) == {
        f"{folder}/{position}.png": leaf
        for folder, leaf in (("dog", 0), ("hot_dog", 1), ("owl", 2), ("rye", 5))
        for position in range(2)
    }
    assert torch.equal(data.training(12).leaves, audit.leaves)
    assert torch.equal(data.audit(12).pixels[:], audit.pixels[:])
    assert [tree.name for tree in data.forest(("mine",)).trees] == ["mine"]


def test_a_folder_without_a_tree(pictures: Path) -> None:
    with pytest.raises(ValueError) as caught:
        open_data(str(pictures))
    assert str(caught.value) == (
        f"the data '{pictures}' comes without a label tree: name one with --trees my_tree.json."
    )


def test_neither_a_name_nor_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        open_data("emojis")
    assert str(caught.value).startswith(
        "data is 'emojis' (did you mean 'emoji'?); give a folder of class sub-folders, "
    )
    assert str(caught.value).endswith(f"or a name: {', '.join(CATALOG)}.")


def test_a_tree_that_leaves_out_a_folder(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "small.json").write_text(json.dumps({"name": "small", "tree": {"a": ["dog", "owl"], "b": ["rye"]}}))
    data = open_data(str(pictures), tree_files=(tmp_path / "small.json",))
    with pytest.raises(ValueError, match=r"the folder 'hot_dog' in .* is none of the 3 classes of the tree"):
        data.training(8)


def test_a_second_tree_over_other_classes(pictures: Path, tree_file: Path, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps({"name": "other", "tree": {"a": ["dog", "cat"]}}))
    with pytest.raises(ValueError, match=r"other\.json"):
        open_data(str(pictures), tree_files=(tree_file, tmp_path / "other.json"))
