"""`robustree harden` and `robustree audit` in several processes: what one process writes, and one voice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import Ran, Run

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
Ranks = Callable[..., list[Ran]]


@pytest.fixture
def ranks(tmp_path: Path) -> Ranks:
    """(world, words, die_at=): run a command line in that many processes."""

    def call(world: int, words: list[object], *, die_at: int | None = None) -> list[Ran]:
        folder = tmp_path / "printed"
        folder.mkdir(exist_ok=True)
        program = [sys.executable, str(Path(__file__).with_name("ranks.py")), str(world), str(folder)]
        environment = ENVIRONMENT | ({"DIE_AT": str(die_at)} if die_at else {})
        done = subprocess.run(
            [*program, *map(str, words)], env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        return [
            Ran(code, (folder / f"{rank}.out").read_text(), (folder / f"{rank}.err").read_text())
            for rank, code in enumerate(json.loads(done.stdout))
        ]

    return call


def test_two_processes_harden_what_one_does_with_two_micro_batches(
    run: Run, ranks: Ranks, hardening: list[object], tmp_path: Path
) -> None:
    """The weights to 1e-6; then the same command says that the run is done, once."""
    words = ["harden", "hierarchical", *hardening, "--save-every", 2]
    first, second = ranks(2, words)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert (second.out, second.err) == ("", "")
    alone = [tmp_path / "alone" if word == tmp_path / "run" else word for word in words]
    assert run(*alone, "--micro-batches", 2).code == 0
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "alone"))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6, msg=name)
    assert sorted(os.listdir(tmp_path / "run")) == sorted(os.listdir(tmp_path / "alone"))
    lines = first.out.splitlines()
    assert run(*words).out.splitlines() == [line for line in lines if not line.startswith("cost ")] != lines


def _rows(folder: Path) -> bytes:
    return (folder / "rows.jsonl").read_bytes()


def test_processes_share_an_audit_and_write_the_rows_of_one(
    run: Run, ranks: Ranks, auditing: list[object], house: Path, tmp_path: Path
) -> None:
    words = ["audit", house / "clip", *auditing, "--trees", house / "tree.json", "--batch-size", 1]
    alone = [tmp_path / "alone" if word == tmp_path / "audit" else word for word in words]
    assert run(*alone).code == 0
    expected = {path.name for path in (tmp_path / "alone").iterdir()}
    whole = _rows(tmp_path / "alone")

    # The last of three processes is killed in its second chunk: what all had finished stays, once.
    started = time.monotonic()
    *others, killed = ranks(3, words, die_at=2)
    assert time.monotonic() - started < 60
    assert killed.code == -signal.SIGKILL
    kept = f"finished rows stay in {tmp_path / 'audit'}; run the same command to go on."
    for rank, other in enumerate(others):
        assert other.code == 1
        last = other.err.splitlines()[-1]
        assert last.startswith("error: the exchange with" if rank == 0 else "process 1: error: the exchange with")
        assert last.endswith(kept)
    rows = _rows(tmp_path / "audit")
    assert 0 < len(rows) < len(whole) and whole.startswith(rows)

    # Two go on.
    first, second = ranks(2, words)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert (second.out, second.err) == ("", "")
    assert "report  " in first.out
    assert _rows(tmp_path / "audit") == whole
    assert {path.name for path in (tmp_path / "audit").iterdir()} == expected


def test_torchrun_starts_the_command_unchanged(run: Run, auditing: list[object], house: Path, tmp_path: Path) -> None:
    words = ["audit", house / "clip", *auditing, "--trees", house / "tree.json", "--batch-size", 1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "robustree", *map(str, words)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report  ") == 1
    alone = [tmp_path / "alone" if word == tmp_path / "audit" else word for word in words]
    assert run(*alone).code == 0
    assert _rows(tmp_path / "audit") == _rows(tmp_path / "alone")
