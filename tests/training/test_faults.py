"""What a run does on full disks, with damaged files and beside another run."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor

from robustree.lock import sole_writer
from robustree.training import ChangedCourseWarning
from robustree.training.state import BEFORE, STATE

Weights = dict[str, Tensor]
Run = Callable[..., Weights]


@pytest.fixture
def undisturbed(run: Run, tmp_path: Path) -> Path:
    run(tmp_path / "undisturbed", save_every=2)
    return tmp_path / "undisturbed"


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_last_two_states_are_kept_and_nothing_else(undisturbed: Path) -> None:
    assert set(_files(undisturbed)) == {"log.csv", STATE, BEFORE}


def _flip(content: bytes) -> bytes:
    """One bit of the last tensor, which safetensors itself does not notice."""
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "one bit": _flip,
    "cut": lambda content: content[:-10],
    "empty": lambda content: b"",
    "another step": lambda content: content.replace(b'step\\": 8', b'step\\": 9'),
}


@pytest.mark.parametrize("kind", list(DAMAGE))
def test_a_damaged_state_is_named_and_the_one_before_it_is_used(
    run: Run, undisturbed: Path, tmp_path: Path, kind: str
) -> None:
    run(tmp_path / "run", save_every=2, stop_after=8)
    state = tmp_path / "run" / STATE
    damaged = DAMAGE[kind](state.read_bytes())
    assert damaged != state.read_bytes()
    state.write_bytes(damaged)
    steps: list[int] = []
    expected = rf"^'{state}' is damaged \(.*\): the run goes on from the state before it, of step 6\.$"
    with pytest.warns(ChangedCourseWarning, match=expected):
        run(tmp_path / "run", save_every=2, report=lambda progress: steps.append(progress.step))
    assert steps == [7, 8, 9, 10]
    assert _files(tmp_path / "run") == _files(undisturbed)


def test_a_damaged_state_never_takes_the_place_of_a_whole_one(run: Run, tmp_path: Path) -> None:
    """Also where the run is killed while it saves for the first time after it went on."""
    run(tmp_path, save_every=2, stop_after=6)
    (tmp_path / STATE).write_bytes(b"")

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robustree.training.state.write_whole", killed)
        with pytest.warns(ChangedCourseWarning), pytest.raises(Killed):
            run(tmp_path, save_every=2)
    steps: list[int] = []
    run(tmp_path, save_every=2, report=lambda progress: steps.append(progress.step))
    assert steps[0] == 5


def test_two_damaged_states_are_refused_by_name(run: Run, undisturbed: Path) -> None:
    for name in (STATE, BEFORE):
        (undisturbed / name).write_bytes(_flip((undisturbed / name).read_bytes()))
    with pytest.raises(ValueError) as caught:
        run(undisturbed)
    why = "is damaged (its sha256 differs from the one that was written)"
    assert str(caught.value) == (
        f"'{undisturbed / STATE}' {why}, and '{undisturbed / BEFORE}' {why}: delete both to start again."
    )


def test_a_state_in_place_of_another_runs_is_refused(run: Run, undisturbed: Path, worker: ModuleType) -> None:
    run(undisturbed.parent / "other", recipe=replace(worker.RECIPE, seed=1))
    (undisturbed / STATE).write_bytes((undisturbed.parent / "other" / STATE).read_bytes())
    with pytest.raises(ValueError, match=r"holds another run \(seed was '1', now '0'\)"):
        run(undisturbed)


@pytest.mark.parametrize("change", [lambda lines: lines[:3] + lines[4:], lambda lines: [*lines[:3], b"4,x\n"]])
def test_a_damaged_log_is_named(run: Run, tmp_path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    run(tmp_path, stop_after=5)
    log = tmp_path / "log.csv"
    log.write_bytes(b"".join(change(log.read_bytes().splitlines(keepends=True))))
    with pytest.raises(ValueError, match=rf"^'{log}' is damaged \(.*\): restore it, or delete it to log anew\.$"):
        run(tmp_path)


@contextmanager
def _full_disk(name: str, calls: int) -> Iterator[None]:
    """The disk is full at the n-th time that a file of that name is written, after half of its bytes."""
    with pytest.MonkeyPatch.context() as patch:
        mkstemp, fdopen, full = tempfile.mkstemp, os.fdopen, []

        def watched(*arguments: Any, **named: Any) -> Any:
            handle, path = mkstemp(*arguments, **named)
            if named["prefix"] == f".{name}-":
                full.append(handle)
            return handle, path

        def opened(handle: int, *arguments: Any) -> Any:
            file = fdopen(handle, *arguments)
            if len(full) == calls and full[-1] == handle:
                original = file.write

                class Full:
                    def __enter__(self) -> Full:
                        return self

                    def __exit__(self, *_: object) -> None:
                        file.close()

                    def write(self, data: bytes) -> None:
                        original(data[: len(data) // 2])
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

                return Full()
            return file

        patch.setattr(tempfile, "mkstemp", watched)
        patch.setattr(os, "fdopen", opened)
        yield


@pytest.mark.parametrize("name", ["log.csv", STATE])
@pytest.mark.parametrize("save", [1, 2, 5])
def test_a_full_disk_costs_the_steps_since_the_last_state(
    run: Run, undisturbed: Path, tmp_path: Path, name: str, save: int
) -> None:
    with _full_disk(name, save), pytest.raises(OSError, match="No space left"):
        run(tmp_path / "run", save_every=2)
    assert not [file for file in _files(tmp_path / "run") if file.startswith(".")]
    steps: list[int] = []
    run(tmp_path / "run", save_every=2, report=lambda progress: steps.append(progress.step))
    assert steps[0] == 2 * (save - 1) + 1
    assert _files(tmp_path / "run").keys() - {BEFORE} == _files(undisturbed).keys() - {BEFORE}
    for file in (STATE, "log.csv"):
        assert (tmp_path / "run" / file).read_bytes() == (undisturbed / file).read_bytes()


def test_leftovers_of_a_killed_run_go_and_other_files_stay(run: Run, tmp_path: Path) -> None:
    for name in (".state.safetensors-abc", ".log.csv-x1", "notes.txt", ".state-of-mind"):
        (tmp_path / name).write_text("half")
    (tmp_path / ".writing-q" / "sub").mkdir(parents=True)
    run(tmp_path, stop_after=1)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", ".state-of-mind", "log.csv", STATE}


def test_a_second_run_is_refused_and_disturbs_nothing(run: Run, undisturbed: Path, tmp_path: Path) -> None:
    refused = []

    def again(progress: Any) -> None:
        if progress.step == 5:
            (tmp_path / "run" / ".state.safetensors-live").write_text("being written")
            before = _files(tmp_path / "run")
            with pytest.raises(ValueError, match=r"^another run is writing into '.*run': wait for it, or choose"):
                run(tmp_path / "run", save_every=2)
            assert _files(tmp_path / "run") == before
            (tmp_path / "run" / ".state.safetensors-live").unlink()
            refused.append(progress)

    run(tmp_path / "run", save_every=2, report=again)
    assert len(refused) == 1
    assert _files(tmp_path / "run") == _files(undisturbed)


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    script = (
        "import sys, pathlib, robustree.lock as lock\n"
        "with lock.sole_writer(pathlib.Path(sys.argv[1]), doing='it'):\n"
        "    print('held', flush=True)\n    sys.stdin.read()"
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script, str(path)], text=True, **pipes) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=r"^another run is writing into"), sole_writer(path, doing="another run"):
            pass
        holder.kill()
    with sole_writer(path, doing="another run") as file:
        file.write(b"mine")
    assert path.read_bytes() == b"mine"


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder removes the file between our opening and our locking it: the file that others see is locked then."""
    import fcntl

    flock, path, calls = fcntl.flock, tmp_path / "file", []

    def late(file: Any, how: int) -> None:
        calls.append(1)
        if len(calls) == 1:
            path.unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with sole_writer(path, doing="another run") as file:
        assert len(calls) == 2
        assert os.path.samestat(os.fstat(file.fileno()), path.stat())
