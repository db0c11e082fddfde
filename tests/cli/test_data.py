"""`robustree data`: the list, what a check finds, and data sets by name on other commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from robustree.data import CATALOG, data_over

Run = Callable[..., Any]


@pytest.fixture
def images(house: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(house / "images", tmp_path / "images"))


def test_the_list_names_every_record(run: Run) -> None:
    ran = run("data", "list")
    assert ran.code == 0
    rows = [line.split("|")[1].strip() for line in ran.out.splitlines()[2:]]
    assert rows == list(CATALOG)
    entries = json.loads(run("data", "list", "--json").out)
    assert {entry["name"]: len(entry["classes"]) for entry in entries}["sun397"] == 397
    assert all(entry["templates"] and all("{}" in text for text in entry["templates"]) for entry in entries)


def test_a_sound_folder(run: Run, images: Path) -> None:
    ran = run("data", "check", images)
    assert ran.code == 0, ran.err
    assert "12 images of 6 classes" in ran.out
    assert "2 to 2 images a class" in ran.out
    assert "nothing found" in ran.out


def test_every_kind_of_finding(run: Run, images: Path, house: Path) -> None:
    (images / "fox" / "2.png").write_text("no image")
    shutil.copy(images / "fox" / "0.png", images / "fox" / "3.png")
    shutil.copy(images / "cat" / "0.png", images / "owl" / "4.png")
    Image.new("RGB", (100, 20)).save(images / "pear" / "5.png")
    shutil.rmtree(images / "plum")
    ran = run("data", "check", images, "--trees", house / "tree.json", "--train", house / "images", "--json")
    assert ran.code == 3
    found = json.loads(ran.out)
    assert found["images"] == 14 and found["counts"]["plum"] == 0 and found["counts"]["fox"] == 4
    assert found["unreadable"] == ["fox/2.png"]
    assert found["duplicates"] == [["fox/0.png", "fox/3.png"]]
    assert found["conflicts"] == [["cat/0.png", "owl/4.png"]]
    assert found["odd"] == ["pear/5.png"]
    assert len(found["shared"]) == 12 and ["cat/0.png", "owl/4.png"] in found["shared"]
    assert len(found["findings"]) == 6
    assert found["largest"] == [100, 20]


def test_the_record_says_how_many_images_there_should_be(run: Run, tmp_path: Path) -> None:
    for name in CATALOG["cifar10"].classes:
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (len(name), ord(name[0]), 0)).save(tmp_path / "test" / name / "0.png")
    ran = run("data", "check", f"cifar10={tmp_path / 'test'}")
    assert ran.code == 3
    assert "look: 10 images; the record has 10000" in ran.out


def test_refusals(run: Run, tmp_path: Path) -> None:
    ran = run("data", "check", "cifar10")
    assert ran.code == 2 and "the images of cifar10 are not in the package; give --data cifar10=PATH" in ran.err
    ran = run("data", "check", "cifra10")
    assert ran.code == 2 and "did you mean 'cifar10'?" in ran.err
    (tmp_path / "x.parquet").write_bytes(b"")
    ran = run("data", "check", tmp_path / "x.parquet")
    assert ran.code == 2 and "give --trees, or name=PATH" in ran.err
    assert run("data", "fetch", "cifra10", "--output", tmp_path / "x.tar").code == 2


def test_a_data_set_of_the_catalogue_is_audited_at_its_own_size(run: Run, house: Path, tmp_path: Path) -> None:
    for number, name in enumerate(CATALOG["cifar10"].classes):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (20 * number, 99, 0)).save(tmp_path / "test" / name / "0.png")
    words = ["--data", f"cifar10={tmp_path / 'test'}", "--trees", "size", "--output", tmp_path / "audit"]
    ran = run("audit", house / "clip", *words, "--pgd.steps", 1, "--no-checks", "--gallery", 0, "--device", "cpu")
    assert ran.code == 0, ran.err
    rows = [json.loads(line) for line in (tmp_path / "audit" / "rows.jsonl").read_text().splitlines()]
    assert {row["image"] for row in rows} == {f"{name}/0.png" for name in CATALOG["cifar10"].classes}
    assert {level for row in rows for level in row["direct"]} >= {"leaf", "size/1"}
    data = data_over(f"cifar10={tmp_path / 'test'}", CATALOG["cifar10"].forest())
    assert data.audit(224).pixels[:2].shape == (2, 3, 32, 32)
    assert data.training(224).images(torch.arange(2), torch.Generator()).shape == (2, 3, 32, 32)
    ran = run("audit", house / "clip", *words, "--trees", "unicode", "--device", "cpu")
    assert ran.code == 2 and "there is no tree 'unicode': give tree files or shipped trees (kind, size)." in ran.err


def test_a_protocol_sets_the_options_and_prints_its_own_table(run: Run, house: Path, tmp_path: Path) -> None:
    for number, name in enumerate(CATALOG["cifar10"].classes):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (20 * number, 99, 0)).save(tmp_path / "test" / name / "0.png")
    words = [house / "clip", "--data", f"cifar10={tmp_path / 'test'}", "--output", tmp_path / "audit", "--no-checks"]
    ran = run("audit", *words, "--protocol", "hrzs", "--gallery", 0, "--device", "cpu")
    assert ran.code == 0, ran.err
    header = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert header["threat"]["eps"] == 1 / 255 and list(header["attacks"]) == ["pgd-20-cross_entropy"]
    ours, _, published = ran.out.partition("published under the protocol hrzs: average over 15 sets, not measured here")
    assert "clip" in ours and "44.34" not in ours
    assert "44.34" in published and "arXiv 2604.18867" in published and "differs  The paper's step size" in published
    ran = run("audit", *words, "--protocol", "hrzs", "--images", 4)
    assert ran.code == 2 and "--protocol sets --images too: give one of them." in ran.err
    for eps in ("8/255", "4/255"):  # the second one is the default of other audits
        ran = run("audit", *words, "--protocol", "hrzs", "--threat.eps", eps)
        assert ran.code == 2 and f"the protocol hrzs has eps 1/255, and --threat.eps is {eps}: give" in ran.err
    ran = run("audit", house / "clip", "--protocol", "fare", "--output", tmp_path / "x")
    assert ran.code == 2 and "the protocol fare audits cifar10, " in ran.err
