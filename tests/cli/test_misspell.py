"""`robustree misspell`: what spelling.json says of a model is what the model does with such names."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robustree.auditing import spelling as searching
from robustree.auditing.statistics import wilson
from robustree.checkpoint import load_checkpoint
from robustree.cli.loading import choose_forest, sources
from robustree.data import data_over
from robustree.models import load
from robustree.taxonomy import Forest
from robustree.tree_model import TEMPLATE, TreeModel, build_tree_model
from tests.cli.conftest import SIDE, Run

Right = Callable[[dict[int, str]], torch.Tensor]


@pytest.fixture
def words(house: Path, tmp_path: Path) -> list[object]:
    words: list[object] = ["--data", house / "images", "--trees", house / "tree.json", "--output", tmp_path / "made"]
    return [*words, "--level", "things/1", "--budget", 60, "--device", "cpu"]


@pytest.fixture
def forest(house: Path) -> Forest:
    return choose_forest(sources([str(house / "clip")]), [str(house / "tree.json")], str(house / "images"))


def record_of(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "made" / "spelling.json").read_text(encoding="utf-8"))


def right_under(build: Callable[[Forest], TreeModel], forest: Forest, house: Path, label: str) -> Right:
    """Misspelled nodes -> (B, 2) the right decisions and the true columns, by a model over a forest of such names."""
    images = data_over(str(house / "images"), forest).audit(SIDE)

    def right(spellings: dict[int, str]) -> torch.Tensor:
        names = tuple(spellings.get(node, name) for node, name in enumerate(forest.names))
        model, cut = build(replace(forest, names=names)), forest.find_cut(label)
        truth = torch.tensor(cut.of_leaf)[images.leaves]
        with torch.no_grad():
            return torch.stack([model(images.pixels[:]).at(cut).argmax(1) == truth, truth], dim=1)

    return right


def check(record: dict[str, Any], right: Right, nodes: tuple[int, ...]) -> None:
    def agrees(rate: dict[str, Any], kept: torch.Tensor) -> None:
        assert (rate["right"], rate["images"]) == (int(kept.sum()), len(kept))
        assert rate["accuracy"] == pytest.approx(float(kept.double().mean()))
        assert (rate["low"], rate["high"]) == wilson(int(kept.sum()), len(kept))

    assert [entry["node"] for entry in record["names"]] == list(nodes)
    clean = right({})
    agrees(record["before"], clean[:, 0])
    for column, entry in enumerate(record["names"]):
        made, own = right({entry["node"]: entry["worst"]}), clean[:, 1] == column
        agrees(entry["level"]["before"], clean[:, 0])
        agrees(entry["level"]["after"], made[:, 0])
        agrees(entry["own_images"]["before"], clean[own, 0])
        agrees(entry["own_images"]["after"], made[own, 0])
        assert made[:, 0].sum() <= clean[:, 0].sum()
        assert 0 < entry["scored"] <= 60 and entry["share"] == entry["scored"] / entry["candidates"]
    agrees(record["together"], right({entry["node"]: entry["worst"] for entry in record["names"]})[:, 0])


def test_a_plain_model(run: Run, house: Path, tmp_path: Path, words: list[object], forest: Forest) -> None:
    ran = run("misspell", house / "clip", *words)
    assert ran.code == 0
    record, plain = record_of(tmp_path), load(str(house / "clip"))
    protocol = {"head": "cosine", "template": TEMPLATE, "level": "things/1", "edits": 1, "budget": 60, "seed": 0}
    assert record.items() >= (protocol | {"images": 12, "forest": forest.fingerprint}).items()
    assert record["command"].startswith(f"robustree misspell {house / 'clip'} --data ")
    gray = torch.full((1, 3, SIDE, SIDE), 0.5)
    build = lambda named: build_tree_model(plain, named, images=gray)  # noqa: E731
    check(record, right_under(build, forest, house, "things/1"), forest.find_cut("things/1").nodes)
    assert "misspell" in ran.err and "100 %" in ran.err
    shown = [line.split() for line in ran.out.splitlines() if " → " in line and "%" in line.split()[-1:]]
    assert {line[0] for line in shown} == {entry["name"] for entry in record["names"]}
    lost = [int(line[-3]) for line in shown]
    assert lost == sorted(lost, reverse=True)
    assert "all 4 names misspelled at once: " in ran.out
    assert ran.out.splitlines()[-1] == str(tmp_path / "made" / "spelling.json")


def test_a_checkpoint_is_read_by_its_own_head(
    run: Run, house: Path, hardened: Path, tmp_path: Path, words: list[object], forest: Forest
) -> None:
    words[words.index("things/1")] = "leaf"
    assert run("misspell", hardened, *words, "--template", "not used: {}").code == 0
    record, checkpoint = record_of(tmp_path), load_checkpoint(hardened)
    assert (record["head"], record["template"]) == ("hyperbolic", checkpoint.template)
    build = lambda named: checkpoint.tree_model.over(named, checkpoint.model.text_features, checkpoint.template)  # noqa: E731
    check(record, right_under(build, forest, house, "leaf"), forest.leaf_cut.nodes)


def test_the_same_command_gives_the_same_bytes(run: Run, house: Path, tmp_path: Path, words: list[object]) -> None:
    def made(*more: object) -> bytes:
        assert run("misspell", house / "clip", *words, "--edits", 2, *more).code == 0
        return (tmp_path / "made" / "spelling.json").read_bytes()

    first = made()
    assert first == made()
    names = [entry["worst"] for entry in json.loads(first)["names"]]
    assert names != [entry["worst"] for entry in json.loads(made("--seed", 1))["names"]]


def test_fewer_images_than_nodes(run: Run, house: Path, tmp_path: Path, words: list[object]) -> None:
    ran = run("misspell", house / "clip", *words, "--images", 2)
    assert ran.code == 0 and "– → –" in ran.out
    bare = [entry["own_images"]["after"] for entry in record_of(tmp_path)["names"]]
    assert {"right": 0, "images": 0, "accuracy": None, "low": None, "high": None} in bare


@pytest.mark.parametrize("old", [None, "an older result"])
def test_an_interrupt_leaves_what_was_there(
    run: Run, house: Path, tmp_path: Path, words: list[object], monkeypatch: pytest.MonkeyPatch, old: str | None
) -> None:
    folder, calls, judge = tmp_path / "made", [], searching._judge
    if old:
        folder.mkdir()
        (folder / "spelling.json").write_text(old)

    def stopping(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return judge(*arguments)

    monkeypatch.setattr(searching, "_judge", stopping)
    ran = run("misspell", house / "clip", *words)
    assert (ran.code, ran.out) == (130, "")
    assert ran.err.splitlines()[-1] == "interrupted: nothing was saved."
    found = {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else {}
    assert found == ({"spelling.json": old} if old else {})


def test_refusals(run: Run, house: Path, hardened: Path, tmp_path: Path, words: list[object]) -> None:
    cases = [
        (["--level", "all"], "--level is all, but the names of one level are misspelled: give one of leaf, things/1, "),
        (["--level", "thing/1"], "there is no level 'thing/1' (did you mean 'things/1'?): the levels are leaf, "),
        (["--edits", 0], "CharacterEdits has edits 0 and budget 60; edits start at 1 and the budget at 2 candidates"),
        (["--budget", 1], "CharacterEdits has edits 1 and budget 1; edits start at 1 and the budget at 2 candidates"),
        (["--batch-size", 0], "--batch-size is 0; it is a number of images and prompts, from 1."),
        (["--images", 13], "13 images were asked for"),
        (["--template", "no place"], "the template is 'no place'; it needs exactly one {}"),
        (["--data", "emojis"], "data is 'emojis' (did you mean 'emoji'?)"),
    ]
    for more, sentence in cases:
        ran = run("misspell", house / "clip", *words, *more)
        assert (ran.code, ran.out) == (2, ""), sentence
        assert ran.err.splitlines()[-1].startswith(f"error: {sentence}") and ran.err.count("\n") == 1
    ran = run("misspell", hardened, *words, "--trees", house / "other.json")
    assert ran.code == 2 and "--other-trees" in ran.err
    ran = run("misspell", house / "clip", "--output", tmp_path / "made")
    assert (ran.code, ran.err) == (2, "error: --level is missing; see robustree misspell --help.\n")
    assert not (tmp_path / "made").exists()
