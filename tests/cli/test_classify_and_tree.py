"""`robustree classify` and `robustree tree`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustree.cli.tree import SHIPPED_NAMES, read_classes
from tests.cli.conftest import COLOURS, Run


def test_scores_are_a_softmax_at_every_level(run: Run, house: Path) -> None:
    words = ["classify", house / "clip", house / "plain" / "fox.png", "--trees", house / "tree.json", "--device", "cpu"]
    (result,) = json.loads(run(*words, "--json").out)
    path = result["trees"]["things"]
    assert [step["level"] for step in path] == ["things/2", "things/1", "leaf"]
    sizes = {"things/2": 2, "things/1": 4, "leaf": 6}
    assert all(1 / sizes[step["level"]] <= step["score"] <= 1 for step in path)
    shown = run(*words).out
    assert all(step["name"] in shown for step in path) and "fox.png" in shown


def test_a_checkpoint_brings_its_trees(run: Run, house: Path, hardened: Path) -> None:
    ran = run("classify", hardened, house / "plain" / "cat.png", "--json", "--device", "cpu")
    assert list(json.loads(ran.out)[0]["trees"]) == ["things"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["clip", "plain/fox.png"], "comes without label trees: name them with --trees."),
        (["clip", "--trees", "tree.json"], "no image was given"),
        (["clip", "plain/no.png", "--trees", "tree.json"], "could not be read as an image"),
        (["clip", "tree.json", "--trees", "tree.json"], "could not be read as an image"),
    ],
)
def test_classify_refuses(
    run: Run, house: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
) -> None:
    monkeypatch.chdir(house)
    ran = run("classify", *words)
    assert (ran.code, ran.out) == (2, "")
    assert sentence in ran.err and ran.err.count("\n") == 1


def test_show_prints_an_outline_and_draws(run: Run, house: Path, tmp_path: Path) -> None:
    ran = run("tree", "show", house / "tree.json")
    assert ran.code == 0
    assert ran.out.startswith("things (6 - 4 - 2 nodes at levels 0..2)\n├─ animal (3)\n")
    for name, start in (("tree.svg", "<svg"), ("tree.html", "<!doctype html>")):
        assert run("tree", "show", house / "tree.json", "--output", tmp_path / "new" / name).code == 0
        assert (tmp_path / "new" / name).read_text().startswith(start)
    assert run("tree", "show", house / "tree.json", "--output", tmp_path / "tree.pdf").code == 2
    assert run("tree", "show", "wordnt").err.startswith("error: there is no tree 'wordnt' (did you mean 'wordnet'?)")


def test_shipped_trees_are_listed_and_shown_by_name(run: Run, tmp_path: Path) -> None:
    listed = run("tree", "list")
    assert listed.code == 0
    assert [line.split()[1] for line in listed.out.splitlines()[2:]] == list(SHIPPED_NAMES)
    assert run("tree", "show", "emoji/size").out == run("tree", "show", "size").out
    assert run("tree", "show", "food101/course").out.startswith("course (101 - 16 - 4 nodes at levels 0..2)\n")
    assert run("tree", "check", "pets/coat").out.startswith("coat is right: 37 leaves, 2 levels above them\n")
    assert "did you mean 'imagenet/kind'?" in run("tree", "show", "imagenet/kin").err
    (tmp_path / "classes.txt").write_text("fox\ncat\n")
    ran = run("tree", "show", "stl10/kind", "--classes", tmp_path / "classes.txt")
    assert ran.code == 2 and ran.err.startswith("error: stl10/kind.json: tree 'kind', line ")


def test_check_counts_nodes(run: Run, house: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(COLOURS) + "\n")
    (tmp_path / "classes.json").write_text(json.dumps([*COLOURS]))
    for more in ([], ["--classes", tmp_path / "classes.txt"], ["--classes", tmp_path / "classes.json"]):
        ran = run("tree", "check", house / "tree.json", *more)
        assert ran.out.splitlines() == [
            "things is right: 6 leaves, 2 levels above them",
            "  leaf         6 nodes",
            "  things/1     4 nodes  of 1 to 2 leaves",
            "  things/2     2 nodes  of 3 leaves",
        ]


def test_check_names_the_mistake(run: Run, house: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"name": "bad",\n "tree": {"a": ["x", "x"]}}')
    (tmp_path / "classes.txt").write_text("fox\ncat\n")
    for words in ([tmp_path / "bad.json"], [house / "tree.json", "--classes", tmp_path / "classes.txt"]):
        ran = run("tree", "check", *words)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith(f"error: {words[0]}") and ran.err.count("\n") == 1
    assert run("tree", "check", tmp_path / "absent.json").code == 2


def test_class_lists(tmp_path: Path) -> None:
    file = tmp_path / "classes.json"
    for content in ('{"a": 1}', "[1, 2]", "[", "\udcff"):
        file.write_text(content, errors="surrogateescape")
        with pytest.raises(ValueError, match="classes"):
            read_classes(file)
