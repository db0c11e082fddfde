"""A hardened model on disk: the same scores again, an ordinary CLIP for transformers, and whole or absent."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.checkpoint import (
    MARKER,
    UNFINISHED,
    complete_files,
    load_checkpoint,
    save_checkpoint,
    write_whole,
)
from robustree.geometry import Euclidean, Poincare, Space, Sphere
from robustree.models import VisionLanguageModel, load
from robustree.taxonomy import Forest
from robustree.tree_model import Depths, TreeModel, build_tree_model
from robustree.writing import remove_leftovers

TEMPLATE = "a drawing of a {}"


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def hardened(
    clip_directory: Path, two_trees: Forest, images: Tensor
) -> Callable[..., tuple[VisionLanguageModel, TreeModel]]:
    """space -> a model and its tree model, moved away from the pretrained weights as training does."""

    def make(space: Space) -> tuple[VisionLanguageModel, TreeModel]:
        model = load(str(clip_directory))
        tree_model = build_tree_model(
            model, two_trees, images=images, space=space, depths=Depths(leaf=1.1, root=0.6), template=TEMPLATE
        )
        draw = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in [*model.image_encoder.parameters(), *model.text_projection.parameters()]:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=draw))
        return model, tree_model.requires_grad_(False)

    return make


@pytest.fixture
def saved(hardened: Callable[..., Any], tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "run", *hardened(Poincare(curvature=0.5)), template=TEMPLATE, record={"steps": 3})
    return tmp_path / "run"


@pytest.mark.parametrize("space", [Poincare(curvature=0.1), Poincare(curvature=4.0), Euclidean(), Sphere()])
def test_a_round_trip_gives_the_same_scores_to_the_bit(
    hardened: Callable[..., Any], images: Tensor, tmp_path: Path, space: Space
) -> None:
    model, tree_model = hardened(space)
    save_checkpoint(tmp_path, model, tree_model, template=TEMPLATE, record={"recipe": {"lr": 0.1}})
    read = load_checkpoint(tmp_path)
    assert read.tree_model.head == tree_model.head
    assert read.tree_model.forest == tree_model.forest
    assert (read.template, read.record) == (TEMPLATE, {"recipe": {"lr": 0.1}})
    with torch.no_grad():
        for ours, expected in zip(read.tree_model(images), tree_model(images), strict=True):
            assert torch.equal(ours, expected)


def test_another_forest_is_read_with_new_prompts(
    hardened: Callable[..., Any], images: Tensor, two_trees: Forest, tmp_path: Path
) -> None:
    """One tree of two: the nodes of that tree score what they scored before."""
    model, tree_model = hardened(Poincare())
    save_checkpoint(tmp_path, model, tree_model, template=TEMPLATE, record={})
    one = two_trees.select(["home"])
    read = load_checkpoint(tmp_path, forest=one).tree_model
    assert read.forest == one
    with torch.no_grad():
        ours, whole = read(images), tree_model(images)
    for level in range(4):
        expected = whole.at(two_trees.cut("home", level))
        torch.testing.assert_close(ours.at(one.cut("home", level)), expected, rtol=1e-5, atol=1e-5)


def test_transformers_opens_the_directory_with_the_hardened_weights(
    hardened: Callable[..., Any], images: Tensor, tmp_path: Path
) -> None:
    from transformers import CLIPModel

    model, tree_model = hardened(Sphere())
    save_checkpoint(tmp_path, model, tree_model, template=TEMPLATE, record={})
    theirs = CLIPModel.from_pretrained(tmp_path)
    pixels = (images - model.image_encoder.mean) / model.image_encoder.std
    with torch.no_grad():
        assert torch.equal(theirs.get_image_features(pixel_values=pixels).pooler_output, model.image_encoder(images))
    assert torch.equal(theirs.text_projection.weight, model.text_projection.weight)


def test_a_checkpoint_can_be_saved_again(saved: Path, images: Tensor) -> None:
    read = load_checkpoint(saved)
    with torch.no_grad():
        before = read.tree_model(images).nodes
        save_checkpoint(saved, read.model, read.tree_model, template=read.template, record=read.record)
        assert torch.equal(load_checkpoint(saved).tree_model(images).nodes, before)
    assert not [file for file in saved.iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize("before", [False, True])
def test_an_interrupted_save_leaves_what_was_there_and_no_half(
    hardened: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    model, tree_model = hardened(Sphere())
    if before:
        save_checkpoint(tmp_path, model, tree_model, template=TEMPLATE, record={"number": 1})
    content = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("robustree.checkpoint.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(tmp_path, model, tree_model, template="{}", record={"number": 2})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == content
    assert (tmp_path / MARKER).exists() == before


def test_a_save_that_ends_between_two_files_leaves_no_checkpoint(
    hardened: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of two saves must never be read as one, so the marker is gone while they are mixed."""
    model, tree_model = hardened(Sphere())
    save_checkpoint(tmp_path, model, tree_model, template=TEMPLATE, record={})
    replace, calls = os.replace, iter(range(10))

    def failing(source: Path, target: Path) -> None:
        if next(calls) == 2:
            raise OSError("the disk went away")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="the disk went away"):
        save_checkpoint(tmp_path, model, tree_model, template=TEMPLATE, record={})
    with pytest.raises(ValueError, match=r"has no robustree\.json; give a directory that `robustree harden` finished"):
        load_checkpoint(tmp_path)


def _refusal(directory: Path) -> str:
    with pytest.raises(ValueError) as caught:
        load_checkpoint(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_directory_that_is_no_checkpoint(tmp_path: Path) -> None:
    assert _refusal(tmp_path) == (
        f"'{tmp_path}' has no robustree.json; give a directory that `robustree harden` finished."
    )


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 1}', '"text"', "\x00\x01", "null"])
def test_a_damaged_record(saved: Path, content: str) -> None:
    (saved / MARKER).write_text(content)
    message = _refusal(saved)
    assert message.startswith(f"'{saved / MARKER}' is damaged (")
    assert message.endswith("): restore it or harden again.")


@pytest.mark.parametrize("key", ["template", "head", "forest", "record"])
def test_a_record_that_lacks_an_entry(saved: Path, key: str) -> None:
    content = json.loads((saved / MARKER).read_text())
    del content[key]
    (saved / MARKER).write_text(json.dumps(content))
    assert _refusal(saved) == f"'{saved / MARKER}' is damaged ('{key}'): restore it or harden again."


def test_a_space_that_nobody_knows(saved: Path) -> None:
    content = json.loads((saved / MARKER).read_text())
    content["head"]["space"]["name"] = "torus"
    (saved / MARKER).write_text(json.dumps(content))
    assert "is damaged ('torus')" in _refusal(saved)


def test_another_format_version_is_named_whatever_else_it_holds(saved: Path) -> None:
    (saved / MARKER).write_text('{"format": 2, "something": "new"}')
    assert _refusal(saved) == f"'{saved / MARKER}' has format 2; this version reads 1: harden again."


@pytest.mark.parametrize("name", ["model.safetensors", "head.safetensors", "config.json"])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    assert name in _refusal(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "head.safetensors"])
def test_damaged_weights_are_refused(saved: Path, name: str) -> None:
    weights = (saved / name).read_bytes()
    for part in (weights[:-10], weights[:20], b""):
        (saved / name).write_bytes(part)
        assert str(saved) in _refusal(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "head.safetensors", "config.json", "tokenizer.json"])
def test_a_file_that_is_not_the_one_that_was_written_is_refused_by_name(saved: Path, name: str) -> None:
    """One bit is enough; what the record does not name may be there."""
    (saved / "notes.txt").write_text("mine")
    load_checkpoint(saved)
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    assert _refusal(saved) == (
        f"'{saved / name}' is not the file that was written (its sha256 differs): it was damaged or replaced; "
        "restore it or harden again."
    )


def test_weights_of_another_checkpoint_are_refused(saved: Path, hardened: Callable[..., Any], tmp_path: Path) -> None:
    model, tree_model = hardened(Poincare(curvature=0.5))
    with torch.no_grad():
        next(model.image_encoder.parameters()).mul_(1.5)
    save_checkpoint(tmp_path / "other", model, tree_model, template=TEMPLATE, record={"steps": 3})
    (saved / "model.safetensors").write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    assert "model.safetensors' is not the file that was written" in _refusal(saved)


def test_a_checkpoint_from_before_files_were_hashed_is_read(saved: Path) -> None:
    content = json.loads((saved / MARKER).read_text())
    written = {path.name for path in saved.iterdir() if path.suffix not in (".md", ".svg")}  # the card may change
    assert set(content.pop("files")) == written - {MARKER}
    (saved / MARKER).write_text(json.dumps(content))
    load_checkpoint(saved)


def test_leftovers_are_those_of_the_named_files(tmp_path: Path) -> None:
    for name in (".a.json-1", ".a.json-22", ".b.json-1", "a.json"):
        (tmp_path / name).write_text("")
    (tmp_path / f".{UNFINISHED}-x").mkdir()
    (tmp_path / f".{UNFINISHED}-x" / "model").write_text("")
    remove_leftovers(tmp_path, ("a.json", UNFINISHED))
    assert {path.name for path in tmp_path.iterdir()} == {".b.json-1", "a.json"}


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file.txt"
    write_whole(path, "first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"

    def failing(handle: int) -> None:
        raise OSError("interrupted")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="interrupted"):
        write_whole(path, "third")
    assert path.read_bytes() == b"second"
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_files_appear_together_and_the_marker_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "done").write_text("old")
    (tmp_path / "kept").write_text("old")
    replace, moved = os.replace, []

    def watching(source: Path, target: Path) -> None:
        assert not (tmp_path / "done").exists()
        moved.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", watching)
    with complete_files(tmp_path, marker="done") as fresh:
        for name in ("done", "a", "z"):
            (fresh / name).write_text("new")
        assert {file.name: file.read_text() for file in tmp_path.iterdir() if file.is_file()} == {
            "done": "old",
            "kept": "old",
        }
    assert sorted(moved[:-1]) == ["a", "z"]
    assert moved[-1] == "done"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "done", "kept", "z"]
