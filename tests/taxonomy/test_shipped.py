from __future__ import annotations

import json
from pathlib import Path

import pytest

import robustree.taxonomy
from robustree.taxonomy import EMOJI_TREES, draw_tree, emoji_forest, outline


@pytest.fixture(scope="module")
def classes() -> list[str]:
    package = Path(robustree.taxonomy.__file__).parents[1]
    content = json.loads((package / "data" / "quickstart" / "classes.json").read_text(encoding="utf-8"))
    return [entry["name"] for entry in content["classes"]]


def test_the_shipped_trees_fit_the_shipped_classes(classes: list[str]) -> None:
    forest = emoji_forest(classes)
    assert forest.leaves == tuple(classes)
    assert tuple(tree.name for tree in forest.trees) == EMOJI_TREES
    for name in EMOJI_TREES:
        assert outline(forest, name).startswith(f"{name} ({len(classes)} - ")
        assert draw_tree(forest, name).count('class="wedge"') == len(
            {node for leaf in range(forest.leaf_count) for node in forest.path(name, leaf)}
        )


def test_trees_can_be_chosen(classes: list[str]) -> None:
    assert emoji_forest(classes, ["size", "unicode"]) == emoji_forest(classes).select(["size", "unicode"])


def test_other_classes_are_refused_with_file_and_line(classes: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^emoji/unicode\.json: tree 'unicode', line \d+: the leaf "):
        emoji_forest(["unicorn", *classes[1:]], ["unicode"])
