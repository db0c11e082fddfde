"""`robustree reproduce`: refusals, commands that are the recipes, and a table from end to end on a tiny model."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from PIL import Image

from robustree.attacks import PGD, AutoAttack
from robustree.auditing.plan import LevelAttack
from robustree.cli import reproduce
from robustree.cli.harden import Command
from robustree.cli.loading import forest_of_trees
from robustree.cli.parsing import parse
from robustree.reproducing import EMBEDDED, SCALES, TABLES
from robustree.reproducing.commands import harden_command
from robustree.reproducing.place import Machine, Place
from tests.cli.conftest import Run

SMALL = replace(
    EMBEDDED,
    base=replace(EMBEDDED.base, attack=PGD(steps=1, best=False), steps=1, batch_size=8),
    attacks=MappingProxyType(
        {
            "PGD-20": LevelAttack(PGD(steps=1)),
            "AutoAttack": LevelAttack(AutoAttack(version="fast", steps=1, targets=1), None),
        }
    ),
)


@pytest.fixture
def words(house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The words of a table at a scale that takes seconds, into `tmp_path/out`."""
    table = TABLES["perturbation"]
    monkeypatch.setattr(reproduce, "SCALES", {**SCALES, "embedded": SMALL})
    monkeypatch.setattr(reproduce, "TABLES", {"perturbation": replace(table, rows=table.rows[1:])})
    model = f"ViT-B/32={house / 'clip'}"
    where = ["--output", tmp_path / "out", "--model", model, "--images", 4, "--step-seconds", 0.1, "--device", "cpu"]
    return ["reproduce", "perturbation", "--scale", "embedded", *where]


def test_a_table_is_made_once_and_goes_on_where_it_was(
    run: Run, words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardened: list[str] = []
    audited: list[str] = []
    harden, audit = reproduce.harden_with_bar, reproduce.audit_with_bar

    def hardening(*arguments: Any, **named: Any) -> None:
        hardened.append(named["title"])
        harden(*arguments, **named)

    def auditing(*arguments: Any, **named: Any) -> None:
        if len(audited) == 2:
            audited.append("interrupted")
            raise KeyboardInterrupt
        audited.append(named["title"])
        audit(*arguments, **named)

    monkeypatch.setattr(reproduce, "harden_with_bar", hardening)
    monkeypatch.setattr(reproduce, "audit_with_bar", auditing)
    first = run(*words)
    assert first.code == 130
    assert "finished rows stay in" in first.err and "run the same command to go on" in first.err
    assert hardened == ["harden hrft-per-level", "harden hrft"]
    second = run(*words)
    assert second.code == 0
    assert hardened == ["harden hrft-per-level", "harden hrft"]
    names = ("hrft-per-level: emoji, PGD-20", "hrft-per-level: emoji, AutoAttack", "hrft: emoji, PGD-20")
    assert audited == [f"audit {names[0]}", f"audit {names[1]}", "interrupted", f"audit {names[2]}", audited[-1]]
    assert "2 of 2" in second.out and "0 of 2" in second.out  # what was finished when it went on, and what was not

    monkeypatch.setattr(reproduce, "harden_with_bar", None)
    monkeypatch.setattr(reproduce, "audit_with_bar", None)
    monkeypatch.setattr(reproduce, "prices", None)
    third = run(*words)
    assert third.code == 0
    content = json.loads((tmp_path / "out" / "embedded" / "perturbation.json").read_text())
    for row in content["rows"]:
        assert row["state"] == "measured"
        assert [cell["of"] for cell in row["own"]] == [1] * 5
        clean, robust, strongest, levels, robust_levels = (cell["value"] for cell in row["own"])
        assert 0 <= strongest <= clean <= 1 and 0 <= robust <= clean and 0 <= robust_levels <= levels <= 1
    assert [row["published"][1] for row in content["rows"]] == [[42.35], [44.34]]
    assert content["own"]["titles"][1] == "PGD-20 at 4/255" and content["published"]["titles"][1] == "PGD-20 at 1/255"
    assert "hardened for 1 steps of 8 images of emoji" in content["own"]["of"]
    assert "say nothing about CLIP" in (tmp_path / "out" / "embedded" / "perturbation.md").read_text()

    other = run(*words, "--seed", 1)
    assert (other.code, other.out) == (2, "")
    assert "was measured with another recipe: choose another --output, or delete the file." in other.err


def test_what_a_machine_has_too_little_of_is_not_begun(
    run: Run, words: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce, "harden_with_bar", None)
    small = Machine(device=torch.device("cpu"), memory=1e3, disk=1e12)
    monkeypatch.setattr(reproduce, "inspect_machine", lambda device, directory: small)
    ran = run(*words)
    assert ran.code == 0
    assert "universal: not begun: needs 0.0 GB of memory, and the cpu has 0.0; --micro-batches 2" in ran.out


def test_what_would_take_too_long_is_not_begun(run: Run, words: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "harden_with_bar", None)
    ran = run(*words, "--step-seconds", 360000)
    assert ran.code == 0
    assert "as --step-seconds says" in " ".join(ran.out.split())
    assert "universal: not begun: takes " in ran.out and "longer than --hours 24" in ran.out


def test_a_data_set_that_is_here_is_measured_and_the_others_are_named(run: Run, house: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog", "horse")):
        (tmp_path / "data" / "cifar10" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (80 * number, 200, 40)).save(tmp_path / "data" / "cifar10" / name / "0.png")
    where = ["--data-root", tmp_path / "data", "--model", f"ViT-B/32={house / 'clip'}", "--output", tmp_path / "out"]
    ran = run("reproduce", "main", *where, "--step-seconds", 0.01, "--device", "cpu")
    assert ran.code == 0
    content = json.loads((tmp_path / "out" / "paper" / "main.json").read_text())
    clip, tecoa = content["rows"][:2]
    assert clip["state"] == "1 of 15 measured; lacks 14 of 15 data sets"
    assert clip["own"][0]["by_set"]["cifar10"]["n"] == 3
    assert tecoa["own"] == [None, None] and tecoa["state"] == "lacks the training images, 14 of 15 data sets"
    assert f"robustree data fetch pets --output {tmp_path / 'data' / 'pets'}.tar --images 3669" in ran.out
    assert "cifar10.tar" not in ran.out


def test_the_list_names_every_table(run: Run) -> None:
    ran = run("reproduce")
    assert ran.code == 0
    assert all(f" {name} " in ran.out and table.about in ran.out for name, table in TABLES.items())


def test_a_plan_writes_nothing(run: Run, words: list[object], tmp_path: Path) -> None:
    ran = run(*words, "--plan")
    assert ran.code == 0
    assert "0 of 2" in ran.out and "takes 0.1 s" in ran.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scale", SCALES.values(), ids=lambda scale: scale.name)
def test_the_commands_are_the_recipes(scale) -> None:
    """Each printed command, parsed as `robustree harden` parses it, gives the recipe, the model and the trees."""
    place = Place(
        scale=replace(scale, base=replace(scale.base, micro_batches=2)), directory=Path("out"), data_root=None
    )
    candidates = {c for table in TABLES.values() for c in table.candidates}
    for candidate in candidates:
        if candidate.method is None or candidate.backbone not in scale.models:
            continue
        robustree, harden, *rest = harden_command(candidate, place)
        assert (robustree, harden) == ("robustree", "harden")
        options = parse(Command, rest, command="harden", about="")
        assert options.recipe() == place.scale.recipe(candidate)
        assert (options.model, options.output) == (scale.models[candidate.backbone], place.checkpoint(candidate))
        assert options.data.partition("=")[0] == scale.training
        if candidate.trees == 5:
            assert forest_of_trees(options.trees, options.data).fingerprint == scale.forest(candidate).fingerprint


def test_commands_are_printed_for_rows_that_are_hardened(run: Run) -> None:
    ran = run("reproduce", "main", "--commands")
    lines = [shlex.split(line) for line in ran.out.splitlines()]
    assert [line[2] for line in lines] == ["tecoa", "pmg-aft", "fare", "agft", "hierarchical", "hierarchical"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["mian"], "there is no table 'mian' (did you mean 'main'?): give main, components, "),
        (["main", "--model", "ViT=x"], "--model is 'ViT=x'; write BACKBONE=WHERE, with ViT-B/32 or ViT-L/14 or RN50"),
        (["main", "--data-root", "nowhere"], "--data-root is 'nowhere', which is no folder: check the path."),
        (["main", "--steps", "0"], "--steps is 0; it counts from 1: give a positive number."),
        (["main", "--hours", "0"], "--hours is 0; give a positive number."),
        (["main", "--step-seconds", "-1"], "--step-seconds is -1; give a positive number."),
    ],
)
def test_refusals(run: Run, words: list[str], sentence: str) -> None:
    ran = run("reproduce", *words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {sentence}")
