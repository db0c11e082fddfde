"""`robustree push` and every command that then reads owner/name, against a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustree.cli import main
from tests.cli.conftest import Ran, Run
from tests.hub_server import TOKEN, Hub, Repository, serve

ROOT = Path(__file__).parents[2]
SCRIPT = """
import contextlib, io, json, sys
from robustree.cli import main
for name, words in json.loads(sys.argv[1]).items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    print(json.dumps([name, code, out.getvalue(), err.getvalue()]))
"""
OPTIONS = [
    "--threat.eps",
    "8/255",
    "--pgd.steps",
    2,
    "--batch-size",
    8,
    "--gallery",
    0,
    "--no-checks",
    "--device",
    "cpu",
]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serve() as hub:
        yield hub


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("push")


@pytest.fixture(scope="module")
def ran(hub: Hub, house: Path, hardened: Path, work: Path) -> dict[str, Ran]:
    """What all these command lines did, in one process that knows this hub and no other."""
    checkpoint = {
        file.name: file.read_bytes() for file in hardened.iterdir() if file.suffix in (".json", ".safetensors")
    }
    assert main(["convert", str(house / "clip"), "--to", "openclip", "--output", str(work / "openclip")]) == 0
    openclip = {file.name: file.read_bytes() for file in (work / "openclip").iterdir()}
    hub.repositories |= {
        "me/seen": Repository(private=False),
        "me/hidden": Repository(private=True),
        "me/half": Repository(private=False, files=checkpoint, commits=1),
        "me/cut": Repository(private=False, files=checkpoint, commits=1),
        "me/openclip": Repository(private=False, files=openclip | {"evil.py": b"raise SystemExit"}, commits=1),
    }
    lost = f"/me/cut/resolve/{1:040x}/head.safetensors"
    hub.failing = ("/me/nodisk.git/", "/me/nocommit/commit/", "/me/half/resolve/main/robustree", lost)
    trees = ["--trees", house / "tree.json"]
    data = ["--data", house / "images"]
    commands: dict[str, list[object]] = {
        "push": ["push", hardened, "me/mine"],
        "audit": ["audit", "me/mine", *data, "--output", work / "audit", *OPTIONS],
        "classify": ["classify", "me/mine", house / "plain" / "fox.png", "--json", "--device", "cpu"],
        "seen": ["push", hardened, "me/seen"],
        "hidden": ["push", hardened, "me/hidden", "--public"],
        "others": ["push", hardened, "others/mine"],
        "strangers": ["push", hardened, "strangers/mine"],
        "name": ["push", hardened, "mine"],
        "plain": ["push", house / "clip", "me/clip"],
        "public": ["push", hardened, "me/open", "--public"],
        "nodisk": ["push", hardened, "me/nodisk"],
        "nocommit": ["push", hardened, "me/nocommit"],
        "half": ["audit", "me/half", *data, *trees, "--output", work / "half", *OPTIONS],
        "cut": ["audit", "me/cut", *data, *trees, "--output", work / "cut", *OPTIONS],
        "openclip": ["audit", "me/openclip", *data, *trees, "--output", work / "there", *OPTIONS],
        "nothing": ["audit", "me/nothing", *data, *trees, "--output", work / "nothing", *OPTIONS],
    }
    environment = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(work / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }
    words = json.dumps({name: [str(word) for word in command] for name, command in commands.items()})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, words], capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name: Ran(*rest) for name, *rest in map(json.loads, done.stdout.splitlines())}


def test_a_pushed_checkpoint_is_whole_private_and_one_commit(hub: Hub, ran: dict[str, Ran], hardened: Path) -> None:
    repository = hub.repositories["me/mine"]
    assert (ran["push"].code, ran["push"].err) == (0, "")
    assert ran["push"].out.splitlines() == [
        f"pushed  {hub.address}/me/mine (private, {len(repository.files)} files)",
        "next    robustree audit me/mine ...",
    ]
    assert repository.private and repository.commits == 1
    expected = {
        "config.json",
        "model.safetensors",
        "head.safetensors",
        "robustree.json",
        "README.md",
        "tree-things.svg",
    }
    assert expected < set(repository.files)
    assert not {"state.safetensors", "log.csv"} & set(repository.files)
    assert all(content == (hardened / name).read_bytes() for name, content in repository.files.items())


def test_it_is_read_from_the_hub_with_its_own_head(
    ran: dict[str, Ran], run: Run, hardened: Path, house: Path, work: Path
) -> None:
    assert ran["audit"].code == 0, ran["audit"].err
    there = (work / "audit" / "rows.jsonl").read_text()
    assert {json.loads(row)["head"] for row in there.splitlines()} == {"hyperbolic", "cosine"}
    words = ["audit", f"mine={hardened}", "--data", house / "images", "--output", work / "here", *OPTIONS]
    assert run(*words).code == 0
    assert (work / "here" / "rows.jsonl").read_text() == there
    assert json.loads(ran["classify"].out)[0]["trees"].keys() == {"things"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("seen", "'me/seen' exists and is public; this upload is meant to be private: add --public, or choose another"),
        (
            "hidden",
            "'me/hidden' exists and is private; this upload is meant to be public: leave --public out, or choose",
        ),
        ("others", "nothing was uploaded to 'others/mine' (403 Forbidden"),
        ("strangers", "nothing was uploaded to 'strangers/mine' ("),
        ("name", "'mine' is no repository: write owner/name."),
        ("plain", "'{house}/clip' has no robustree.json; give a directory that `robustree harden` finished."),
        ("nodisk", "nothing was uploaded to 'me/nodisk' (Server error '507 Insufficient Storage' for"),
        ("nocommit", "nothing was uploaded to 'me/nocommit' (Server error '507 Insufficient Storage' for"),
        ("half", "the hub does not say whether 'me/half' has robustree.json ("),
        ("cut", "'me/cut' could not be fetched ("),
        ("nothing", "no model could be read at 'me/nothing' ("),
    ],
)
def test_what_fails_is_one_sentence_and_leaves_nothing(
    hub: Hub, ran: dict[str, Ran], house: Path, work: Path, name: str, sentence: str
) -> None:
    found = ran[name]
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith(f"error: {sentence.format(house=house)}") and found.err.count("\n") == 1
    assert not (work / name).exists()
    if name in ("seen", "hidden", "nodisk", "nocommit"):
        assert hub.repositories[f"me/{name}"].files == {}
    assert "me/clip" not in hub.repositories


def test_a_public_one_is_public(hub: Hub, ran: dict[str, Ran]) -> None:
    assert ran["public"].code == 0 and "(public, " in ran["public"].out and not hub.repositories["me/open"].private


def test_a_repository_in_open_clip_s_layout_is_the_same_model(
    hub: Hub, ran: dict[str, Ran], run: Run, house: Path, work: Path
) -> None:
    assert ran["openclip"].code == 0, ran["openclip"].err
    assert not any("evil" in request for request in hub.requests)
    words = ["audit", f"openclip={house / 'clip'}", "--data", house / "images", "--trees", house / "tree.json"]
    assert run(*words, "--output", work / "same", *OPTIONS).code == 0
    assert (work / "same" / "rows.jsonl").read_text() == (work / "there" / "rows.jsonl").read_text()
