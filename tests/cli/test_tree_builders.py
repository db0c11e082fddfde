"""`robustree tree wordnet`, `cluster`, `llm` and `compare`, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustree.cli.class_lists import open_classes, shipped_lists
from robustree.cli.tree_cluster import TEMPLATES, chosen_templates
from robustree.taxonomy import leaves_of
from tests.cli.conftest import COLOURS, Run
from tests.taxonomy.building.endpoint import endpoint, says

GROUPS = {"fox": "mammal", "cat": "mammal", "owl": "bird", "pear": "food", "plum": "food", "bread": "food"}
LLM = ("--endpoint", "http://localhost/v1", "--llm", "m")


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(COLOURS) + "\n")
    return path


def test_a_wordnet_tree_and_its_senses(run: Run, classes: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "tree.json"
    ran = run("tree", "wordnet", classes, "--output", output, "--levels", 2, "--name", "nouns")
    assert (ran.code, ran.err) == (0, "")
    assert "nouns/1" in ran.out and "have several senses, such as fox" in ran.out
    assert leaves_of(output) and sorted(leaves_of(output)) == sorted(COLOURS)
    senses = output.with_suffix(".senses.txt")
    lines = dict(line.split("=", 1) for line in senses.read_text().splitlines())
    assert lines["fox"].startswith("n02118333  # fox (canine); not ")
    own = tmp_path / "own.txt"
    own.write_text("fox=n10023039  # somebody sly\n")
    before = output.read_text()
    assert run("tree", "wordnet", classes, "--output", output, "--senses", own).code == 0
    assert output.read_text() != before and "fox=n10023039" in senses.read_text()
    assert run("tree", "wordnet", output, "--output", tmp_path / "again.json").code == 0


def test_a_class_that_wordnet_lacks_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("fox\ngyroscopicon\n")
    ran = run("tree", "wordnet", tmp_path / "c.txt", "--output", tmp_path / "tree.json")
    assert (ran.code, ran.out) == (2, "") and ran.err.count("\n") == 1
    assert "the class 'gyroscopicon' (nearest: " in ran.err
    assert not (tmp_path / "tree.json").exists() and not (tmp_path / "tree.senses.txt").exists()


def test_clusters_of_a_model(run: Run, house: Path, classes: Path, tmp_path: Path) -> None:
    words = ["tree", "cluster", classes, "--model", house / "clip", "--levels", 2, "--linkage", "average"]
    for number, more in enumerate(([], [], ["--seed", 1])):
        assert run(*words, "--output", tmp_path / f"{number}.json", *more).code == 0
    assert (tmp_path / "0.json").read_text() == (tmp_path / "1.json").read_text()
    assert "average linkage) of the text embeddings of clip over 10 sentences, cut" in (tmp_path / "0.json").read_text()
    assert "drawn with seed 1, cut" in (tmp_path / "2.json").read_text()
    assert run("tree", "check", tmp_path / "2.json", "--classes", classes).code == 0


def test_sentences_are_drawn_again_for_each_seed() -> None:
    assert chosen_templates(None) == TEMPLATES
    drawn = {chosen_templates(seed) for seed in range(5)}
    assert len(drawn) == 5 and all(len(t) == len(TEMPLATES) and set(t) < set(TEMPLATES) for t in drawn)
    assert chosen_templates(3) == chosen_templates(3)


def test_a_language_model_over_http(run: Run, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {"animal": ["mammal", "bird"], "thing to eat": ["food"]}
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with endpoint(lambda request, number: says(json.dumps(GROUPS if number else groups))) as seen:
        words = ["tree", "llm", classes, "--endpoint", seen.url, "--llm", "toy", "--output", tmp_path / "tree.json"]
        ran = run(*words, "--key-variable", "MY_KEY")
        assert ran.code == 0 and "llm/2     2 nodes" in ran.out
        content = (tmp_path / "tree.json").read_text()
        assert "language model toy" in content
        (tmp_path / "tree.json").unlink()
        assert run(*words).code == 0 and len(seen.requests) == 2
    assert (tmp_path / "tree.json").read_text() == content
    assert seen.keys == ["Bearer sk-secret"] * 2
    assert len(list((tmp_path / "tree.answers").iterdir())) == 2
    kept = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert "sk-secret" not in kept + ran.out + ran.err


def test_comparison_of_trees(run: Run, house: Path, tmp_path: Path) -> None:
    for name, start in (("map.svg", "<svg"), ("map.html", "<!doctype html>")):
        ran = run("tree", "compare", house / "tree.json", house / "other.json", "--output", tmp_path / name)
        assert ran.code == 0 and (tmp_path / name).read_text().startswith(start)
    assert "things and use" in ran.out
    both = run("tree", "compare", house / "tree.json", house / "tree.json")
    assert "things and things-2" in both.out and both.out.count("1.00") == 3
    assert run("tree", "compare", "imagenet/kind", "imagenet/wordnet").code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["compare", "tree.json"], "a comparison needs at least two trees, not 1"),
        (["compare", "tree.json", "unicode"], "is no class of the model"),
        (["compare", "tree.json", "other.json", "--output", "map.png"], "a file that ends in .svg or .html"),
        (["compare", "tree.json", "no.json"], "cannot be read"),
        (["show", "tree.json", "--output", "t.svg", "--width", "0"], "the width is 0 pixels"),
        (
            ["wordnet", "imagenett", "--output", "t.json"],
            "(did you mean 'imagenet'?): give a file with one class a line",
        ),
        (["wordnet", "cifar10", "--output", "t.txt"], "--output is 't.txt'; give a file that ends in .json"),
        (["wordnet", "cifar10", "--output", "t.json", "--name", "a b"], "a tree cannot be named 'a b'"),
        (["wordnet", "cifar10", "--output", "t.json", "--levels", "0"], "0 levels were asked for"),
        (["wordnet", "cifar10", "--output", "t.json", "--senses", "no.txt"], "'no.txt' cannot be used"),
        (["cluster", "cifar10", "--model", "nanoo", "--output", "t.json"], "(did you mean 'nano'?)"),
        (["cluster", "cifar10", "--model", "nano", "--output", "t.json", "--linkage", "x"], "'x'"),
        (["llm", "cifar10", "--endpoint", "localhost", "--llm", "m", "--output", "t.json"], "give a URL such as"),
        (
            [
                "llm",
                "cifar10",
                "--endpoint",
                "http://localhost/v1",
                "--llm",
                "m",
                "--output",
                "t.json",
                "--key-variable",
                "ROBUSTREE_NO_SUCH_KEY",
            ],
            "the environment variable ROBUSTREE_NO_SUCH_KEY is not set",
        ),
    ],
)
def test_bad_words(run: Run, house: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str) -> None:
    monkeypatch.chdir(house)
    ran = run("tree", *words)
    assert (ran.code, ran.out) == (2, "") and ran.err.count("\n") == 1
    assert sentence in ran.err
    assert not list(house.glob("t.*"))


def test_lists_of_classes(tmp_path: Path) -> None:
    lists = shipped_lists()
    assert lists[0] == "emoji" and "imagenet" in lists and len(lists) == len(set(lists)) >= 17
    assert {name: len(open_classes(name).names) for name in ("emoji", "imagenet", "pcam")} == {
        "emoji": 262,
        "imagenet": 1000,
        "pcam": 2,
    }
    assert (open_classes("imagenet").synsets or "").count("\n") >= 999 and open_classes("pets").synsets is None
    for text, message in (("fox\nfox\n", "'fox' occurs twice"), ("fox\n", "holds 1 classes")):
        (tmp_path / "c.txt").write_text(text)
        with pytest.raises(ValueError, match=message):
            open_classes(str(tmp_path / "c.txt"))
