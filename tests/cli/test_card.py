"""The model card: written with the checkpoint, filled by an audit of that very checkpoint, readable by the hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from robustree.checkpoint import load_checkpoint
from tests.cli.conftest import Run


@pytest.fixture
def checkpoint(hardened: Path, tmp_path: Path) -> Path:
    """A copy to write on."""
    return shutil.copytree(hardened, tmp_path / "hardened")


def test_a_checkpoint_comes_with_a_card_that_claims_nothing(checkpoint: Path) -> None:
    card = ModelCard.load(checkpoint / "README.md")
    assert card.data.pipeline_tag == "zero-shot-image-classification" and card.data.library_name == "transformers"
    assert card.data.eval_results is None and card.data.license == "other"
    assert "# clip hardened with Hierarchical" in card.content
    assert "Not measured yet" in card.text and "![things](tree-things.svg)" in card.text
    assert (checkpoint / "tree-things.svg").read_text().startswith("<svg")
    assert "| `method.vic` |" in card.text and "poincare, curvature 1" in card.text


def test_an_audit_fills_the_card(
    run: Run, house: Path, checkpoint: Path, auditing: list[object], tmp_path: Path
) -> None:
    assert run("audit", house / "clip", f"mine={checkpoint}", *auditing).code == 0
    before = (checkpoint / "tree-things.svg").read_text()
    ran = run("card", checkpoint, "--audit", tmp_path / "audit", "--licence", "cc-by-nc-4.0")
    assert (ran.code, ran.out) == (0, f"model card  {checkpoint / 'README.md'}\n")
    figures = json.loads((tmp_path / "audit" / "figures.json").read_text())
    subject = next(s for s in figures["models"] if (s["model"], s["head"]) == ("mine", "hyperbolic"))
    card = ModelCard.load(checkpoint / "README.md")
    results = card.data.eval_results
    assert results is not None and card.data.license == "cc-by-nc-4.0"
    found = {(r.dataset_config, (r.metric_name or "").split(" ")[0]): r.metric_value for r in results}
    for cut in subject["cuts"]:
        reading = cut["readouts"]["direct"]
        assert found[cut["cut"], "clean"] == round(100 * reading["clean"]["value"], 2)
        assert found[cut["cut"], "robust"] == round(100 * reading["worst"]["value"], 2)
    assert len(found) == 2 * len(subject["cuts"])
    assert all(r.dataset_name.startswith("images, 12 images, ") for r in results)
    assert "linf, eps 8/255" in card.text and "cc-by-nc-4.0." in card.text
    assert figures["models"][0]["model"] == "clip"  # the other model of the audit was not taken
    assert (checkpoint / "tree-things.svg").read_text() != before
    load_checkpoint(checkpoint)
    record = json.loads((checkpoint / "robustree.json").read_text())
    assert record["figures"]["levels"][0]["level"] == "leaf" and record["licence"] == "cc-by-nc-4.0"


def test_a_card_keeps_its_figures_when_only_the_licence_changes(
    run: Run, checkpoint: Path, auditing: list[object], tmp_path: Path
) -> None:
    assert run("audit", checkpoint, *auditing).code == 0
    assert run("card", checkpoint, "--audit", tmp_path / "audit").code == 0
    filled = (checkpoint / "README.md").read_text()
    assert run("card", checkpoint).code == 0
    assert (checkpoint / "README.md").read_text() == filled
    assert run("card", checkpoint, "--licence", "mit").code == 0
    assert "robust accuracy" in (checkpoint / "README.md").read_text()


def test_figures_of_other_weights_are_refused(
    run: Run, house: Path, checkpoint: Path, auditing: list[object], tmp_path: Path
) -> None:
    assert run("audit", f"hardened={house / 'clip'}", *auditing, "--trees", house / "tree.json").code == 0
    content = {file.name: file.read_bytes() for file in checkpoint.iterdir() if file.is_file()}
    ran = run("card", checkpoint, "--audit", tmp_path / "audit")
    assert (ran.code, ran.out) == (2, "") and ran.err.count("\n") == 1
    assert "measured hardened, and none of them with the weights of" in ran.err
    for directory, sentence in (
        (checkpoint, "has no audit.json: give a directory in which"),
        (tmp_path / "x", "has no"),
    ):
        assert sentence in run("card", checkpoint, "--audit", directory).err
    (tmp_path / "audit" / "figures.json").write_text("{")
    assert "is damaged (" in run("card", checkpoint, "--audit", tmp_path / "audit").err
    assert "has no robustree.json" in run("card", house / "clip").err
    assert {file.name: file.read_bytes() for file in checkpoint.iterdir() if file.is_file()} == content
