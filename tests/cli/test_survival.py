"""`robustree audit` on full disks and with bad images, models and rows: a sentence, a code, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from robustree.auditing import audit as auditing_module
from robustree.auditing.rows import RowFile
from tests.cli.conftest import Run

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def words(house: Path, auditing: list[object]) -> list[object]:
    """A short audit of a model with its gallery and curves."""
    return ["audit", house / "clip", *auditing, "--trees", house / "tree.json", "--images", 6, "--curves"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def _results(folder: Path) -> dict[str, bytes]:
    """Everything that an audit leaves, by name; the digests of the pictures too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("audit.json", "finished rows stay in"),
        ("rows.jsonl", "finished rows stay in"),
        ("curves.json", "all rows are in"),
        ("01-clean", "all rows are in"),
        ("gallery.json", "all rows are in"),
        ("report.html", "all rows are in"),
        ("figures.json", "all rows are in"),
    ],
)
def test_a_full_disk_says_what_was_kept_and_the_same_command_goes_on(
    run: Run, words: list[object], folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, kept: str
) -> None:
    assert run(*words).code == 0
    whole = _results(folder)
    shutil.rmtree(folder)
    mkstemp, append, calls = tempfile.mkstemp, RowFile.append, []

    def refuse(*arguments: Any, **named: Any) -> Any:
        if named.get("prefix", "").startswith(f".{name}"):
            raise FULL
        return mkstemp(*arguments, **named)

    def half(self: RowFile, rows: Any) -> int:
        calls.append(len(rows))
        if len(calls) == 3:
            append(self, rows[: len(rows) // 2])
            self.file.write(b'{"image": "half')
            raise FULL
        return append(self, rows)

    with monkeypatch.context() as patched:
        if name == "rows.jsonl":
            patched.setattr(RowFile, "append", half)
        else:
            patched.setattr(tempfile, "mkstemp", refuse)
        ran = run(*words)
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == f"error: the disk is full; {kept} {folder}; run the same command to go on."
    assert run(*words).code == 0
    assert _results(folder) == whole


def test_a_full_disk_while_the_checks_are_written(
    run: Run, words: list[object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checked(*_: Any, **__: Any) -> None:
        raise FULL

    monkeypatch.setattr("robustree.cli.audit.run_checks", checked)
    ran = run(*[word for word in words if word != "--no-checks"])
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == (
        f"error: the disk is full; all rows are in {folder}; run the same command to go on."
    )


def test_the_old_gallery_stands_until_the_new_one_does(
    run: Run, words: list[object], house: Path, hardened: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures and what is said about them belong together at any time, also after a crash between them."""
    words = ["48/255" if word == "8/255" else word for word in words]
    assert run(*words).code == 0
    before = {name: content for name, content in _results(folder).items() if name.startswith("gallery")}
    assert len(before) > 3
    mkstemp = tempfile.mkstemp

    def refuse(*arguments: Any, **named: Any) -> Any:
        if named.get("prefix", "").startswith(".gallery.json"):
            raise FULL
        return mkstemp(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "mkstemp", refuse)
        assert run("audit", hardened, *words[2:]).code == 1  # other pictures under the old numbers
    after = _results(folder)
    assert {name: after[name] for name in before} == before
    assert len([name for name in after if name.startswith("gallery")]) > len(before)
    assert run("report", folder).code == 0
    assert run(*words).code == 0
    assert {name: content for name, content in _results(folder).items() if name.startswith("gallery")} == before


def test_a_report_of_the_models_that_are_finished(
    run: Run, words: list[object], house: Path, hardened: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = auditing_module._chunk

    def chunk(subject: Any, *arguments: Any) -> Any:
        if subject.name == "hardened":
            raise KeyboardInterrupt
        return original(subject, *arguments)

    monkeypatch.setattr(auditing_module, "_chunk", chunk)
    assert run(*words[:2], hardened, *words[2:]).code == 130
    assert run("report", folder).code == 0
    figures = json.loads((folder / "figures.json").read_text())
    assert [subject["model"] for subject in figures["models"]] == ["clip"]


def test_an_unreadable_image_costs_nothing(
    run: Run, words: list[object], house: Path, folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "images"
    shutil.copytree(house / "images", copy)
    words = [copy if word == house / "images" else word for word in words]
    assert run(*words).code == 0
    whole = _results(folder)
    victim = copy / json.loads((folder / "rows.jsonl").read_text().splitlines()[0])["image"]
    content = victim.read_bytes()
    victim.write_bytes(content[:200])
    ran = run(*words)
    assert ran.code == 2 and ran.out == ""
    assert ran.err.splitlines()[-1].startswith(f"error: {str(victim)!r} could not be")
    assert _results(folder) == whole
    victim.write_bytes(content)
    assert run(*words).code == 0
    assert _results(folder) == whole


def test_a_model_whose_scores_are_not_finite(
    run: Run, words: list[object], house: Path, folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(house / "clip", broken)
    weights = load_file(broken / "model.safetensors")
    save_file(
        {name: w * float("nan") if "visual_projection" in name else w for name, w in weights.items()},
        broken / "model.safetensors",
        metadata={"format": "pt"},
    )
    assert run(*words).code == 0
    rows = (folder / "rows.jsonl").read_bytes()
    shutil.rmtree(folder)
    ran = run(words[0], words[1], broken, *words[2:])
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[-1] == (
        "error: the model 'broken' gave scores that are not finite (clean images); rows written so far are kept: check "
        "its weights."
    )
    assert (folder / "rows.jsonl").read_bytes() == rows
    assert run(*words).code == 0
    assert (folder / "rows.jsonl").read_bytes() == rows


def test_rows_damaged_in_the_middle(run: Run, words: list[object], folder: Path) -> None:
    assert run(*words).code == 0
    whole = (folder / "rows.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (folder / "rows.jsonl").write_bytes(b"".join([*lines[:6], lines[6][: len(lines[6]) // 2] + b"\n", *lines[7:]]))
    for command in (words, ["report", folder]):
        ran = run(*command)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.count("\n") == 1 and ran.err.startswith("error: line 7 of ")
    (folder / "rows.jsonl").write_bytes(b"".join([*lines[:6], *lines[7:]]))
    assert run(*words).code == 0
    assert sorted((folder / "rows.jsonl").read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_second_process_is_refused(run: Run, words: list[object], folder: Path) -> None:
    folder.mkdir()
    script = (
        "import fcntl, sys\nfile = open(sys.argv[1], 'a+b')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(folder / "rows.jsonl")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        ran = run(*words)
        other.communicate("")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"error: another audit is writing into {str(folder)!r}: wait for it, or choose another directory.\n"
    )
    assert run(*words).code == 0


@pytest.mark.parametrize("phase", ["measure_curves", "make_exhibits", "show_report"])
def test_ctrl_c_after_the_rows(
    run: Run, words: list[object], folder: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"robustree.cli.audit.{phase}", interrupt)
    ran = run(*words)
    assert ran.code == 130
    assert ran.err.splitlines()[-1] == f"interrupted: all rows are in {folder}; run the same command to go on."
