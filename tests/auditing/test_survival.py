"""Audits that are killed, meet a full disk or damaged files end in the rows of the audit that nobody disturbed."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustree.auditing.audit import Status
from robustree.auditing.rows import FOREST, HEADER, ROWS, key_of, read_rows
from tests.auditing import survivor

PROGRAM = [sys.executable, str(Path(survivor.__file__))]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
SMALL = replace(survivor.PLAN, attacks=survivor.PLAN.attacks[:1], all_levels=None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the undisturbed audit."""
    folder = tmp_path_factory.mktemp("whole")
    survivor.run(folder)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The rows of the undisturbed audit with one attack."""
    folder = tmp_path_factory.mktemp("small")
    survivor.run(folder, plan=SMALL)
    return (folder / ROWS).read_bytes()


def test_an_audit_that_is_killed_again_and_again_ends_in_the_same_rows(whole: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "kill", str(tmp_path), "11"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout.split()[0])
    assert kills >= 20
    expected = (whole / ROWS).read_bytes()
    assert len(expected.splitlines()) == survivor.COUNT * (2 + 4 * 3)
    for folder in tmp_path.iterdir():
        rows = (folder / ROWS).read_bytes()
        assert sorted(rows.splitlines()) == sorted(expected.splitlines()), done.stdout
        assert rows == expected
        assert {path.name for path in folder.iterdir()} == {ROWS, HEADER, FOREST}  # nothing half-written is left
        assert (folder / HEADER).read_bytes() == (whole / HEADER).read_bytes()


def test_a_second_process_is_refused_and_disturbs_nothing(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    command = [*PROGRAM, "hold", str(folder)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=ENVIRONMENT, text=True, **pipes) as first:
        assert first.stdout and first.stdout.readline() == "in the middle\n"
        before = (folder / ROWS).read_bytes()
        with pytest.raises(ValueError, match=r"^another audit is writing into '.*audit': wait for it, or choose"):
            survivor.run(folder)
        assert (folder / ROWS).read_bytes() == before
        _, errors = first.communicate("go on")
        assert first.returncode == 0, errors
    assert (folder / ROWS).read_bytes() == (whole / ROWS).read_bytes()


class _Full:
    """A file on a disk that is full after some more bytes."""

    def __init__(self, file: Any, room: int):
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        self.file.write(data[: self.room])
        self.file.flush()
        if len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(data)
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.file)

    def __enter__(self) -> _Full:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@pytest.mark.parametrize("room", [0, 1, 700, 4000, 9999])
def test_a_disk_that_fills_up_while_rows_are_written(
    room: int, small: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path_open = Path.open

    def opened(self: Path, *arguments: Any, **named: Any) -> Any:
        file = path_open(self, *arguments, **named)
        return _Full(file, room) if self.name == ROWS else file

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", opened)
        with pytest.raises(OSError, match="No space left on device"):
            survivor.run(tmp_path, plan=SMALL)
    assert (tmp_path / ROWS).read_bytes() == small[:room]
    survivor.run(tmp_path, plan=SMALL)
    assert (tmp_path / ROWS).read_bytes() == small


@pytest.mark.parametrize("name", [HEADER, FOREST])
@pytest.mark.parametrize("begun", [False, True])
def test_a_disk_that_is_full_before_the_first_row(
    name: str, begun: bool, small: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_disk: Callable[..., Any]
) -> None:
    if begun:

        def stop(status: Status) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            survivor.run(tmp_path, stop, plan=SMALL)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patched:
        full_disk(patched, name)
        with pytest.raises(OSError, match="No space left on device"):
            survivor.run(tmp_path, plan=SMALL)
    for file, content in before.items():
        assert (tmp_path / file).read_bytes() == content
    survivor.run(tmp_path, plan=SMALL)
    assert (tmp_path / ROWS).read_bytes() == small


@pytest.fixture
def full_disk() -> Callable[[pytest.MonkeyPatch, str], None]:
    """(patch, name): the disk is full whenever a file of that name is written as a whole."""

    def patch(patched: pytest.MonkeyPatch, name: str) -> None:
        mkstemp = tempfile.mkstemp

        def refuse(*arguments: Any, **named: Any) -> Any:
            if named.get("prefix", "").startswith(f".{name}"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return mkstemp(*arguments, **named)

        patched.setattr(tempfile, "mkstemp", refuse)

    return patch


def _glued(lines: list[bytes]) -> None:
    lines[4:6] = [lines[4].rstrip(b"\n") + lines[5]]


DAMAGE: dict[str, Callable[[list[bytes]], None]] = {
    "cut": lambda lines: lines.__setitem__(4, lines[4][:30] + b"\n"),
    "zeros": lambda lines: lines.__setitem__(4, b"\0" * 40 + b"\n"),
    "bytes": lambda lines: lines.__setitem__(4, lines[4].replace(b"noise", b"\xff\xfe")),
    "empty": lambda lines: lines.__setitem__(4, b"\n"),
    "number": lambda lines: lines.__setitem__(4, b"5\n"),
    "list": lambda lines: lines.__setitem__(4, b"[]\n"),
    "no key": lambda lines: lines.__setitem__(4, lines[4].replace(b'"image"', b'"omage"')),
    "no text": lambda lines: lines.__setitem__(4, lines[4].replace(b'"noise/04"', b'["noise/04"]')),
    "glued": _glued,
}


@pytest.mark.parametrize("kind", list(DAMAGE))
def test_rows_damaged_in_the_middle_are_named_and_made_again(kind: str, small: bytes, tmp_path: Path) -> None:
    survivor.run(tmp_path, plan=SMALL)
    lines = small.splitlines(keepends=True)
    DAMAGE[kind](lines)
    damaged = b"".join(lines)
    assert damaged != small
    (tmp_path / ROWS).write_bytes(damaged)
    for read in (lambda: survivor.run(tmp_path, plan=SMALL), lambda: list(read_rows(tmp_path))):
        with pytest.raises(
            ValueError, match=r"^line 5 of '.*rows\.jsonl' is no row of an audit \((.|\n)*\): delete the"
        ):
            read()
    assert (tmp_path / ROWS).read_bytes() == damaged  # nothing is repaired behind the user's back
    del lines[4]
    (tmp_path / ROWS).write_bytes(b"".join(lines))
    survivor.run(tmp_path, plan=SMALL)
    assert sorted((tmp_path / ROWS).read_bytes().splitlines()) == sorted(small.splitlines())


def test_half_a_line_at_the_end_is_no_row(small: bytes, tmp_path: Path) -> None:
    (tmp_path / ROWS).write_bytes(small[:-20])
    with pytest.raises(ValueError, match=r"^line 48 of "):
        list(read_rows(tmp_path))
    (tmp_path / ROWS).write_bytes(b"")
    assert list(read_rows(tmp_path)) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"heads": [], "attacks": {}, "spearman": {}, "models": []}'])
def test_a_damaged_header_is_named(content: str, small: bytes, tmp_path: Path) -> None:
    survivor.run(tmp_path, plan=SMALL)
    (tmp_path / HEADER).write_text(content)
    with pytest.raises(ValueError, match=r"audit\.json' is damaged \(.*\): restore it, or choose another directory\."):
        survivor.run(tmp_path, plan=SMALL)
    assert (tmp_path / ROWS).read_bytes() == small


def test_rows_without_a_header_are_not_taken_for_this_audit(small: bytes, tmp_path: Path) -> None:
    (tmp_path / ROWS).write_bytes(small)
    with pytest.raises(ValueError, match=r"holds rows but no audit\.json, which says what audit they belong to"):
        survivor.run(tmp_path, plan=SMALL)
    assert (tmp_path / ROWS).read_bytes() == small and not (tmp_path / HEADER).exists()


def test_a_model_that_is_not_finite_is_named_and_costs_no_other_model(small: bytes, tmp_path: Path) -> None:
    good, broken = survivor.subject(), survivor.subject("broken", seed=1)
    next(broken.model.image_encoder.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"^the model 'broken' gave scores that are not finite \(clean images\); rows"):
        survivor.run(tmp_path, plan=SMALL, subjects=[good, broken])
    assert (tmp_path / ROWS).read_bytes() == small


def test_the_header_names_the_stages_of_cascades(whole: Path) -> None:
    attacks = json.loads((whole / HEADER).read_text())["attacks"]
    assert attacks["autoattack-standard"]["stages"] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert all("stages" not in record for name, record in attacks.items() if name != "autoattack-standard")
    assert len({key_of(row) for row in read_rows(whole)}) == len(list(read_rows(whole)))
