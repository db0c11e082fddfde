from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from robustree.cli import demo
from robustree.cli.demo import MISSING, Options, open_bench
from robustree.demo.serving import listen
from tests.cli.conftest import Run


def options(house: Path, **values: Any) -> Options:
    return Options(data=str(house / "images"), trees=(str(house / "tree.json"),), device="cpu", **values)


def test_models_images_and_trees_of_the_users_make_the_bench(house: Path, hardened: Path) -> None:
    bench = open_bench(options(house, models=(f"before={house / 'clip'}", f"after={hardened}")))
    assert [(subject.name, subject.head) for subject in bench.subjects] == [
        ("before", "cosine"),
        ("after", "hyperbolic"),
    ]
    assert bench.forest.leaves == ("fox", "cat", "owl", "pear", "plum", "bread")
    assert len(bench.samples) == 12
    assert {sample.leaf for sample in bench.samples} == set(range(6))
    assert {tuple(sample.pixels.shape) for sample in bench.samples} == {(3, 16, 16)}
    assert (bench.resolution, bench.missing, bench.audit) == (16, None, None)


def test_without_models_the_plain_one_is_shown_and_a_command_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bench = open_bench(Options(trees=("unicode",), device="cpu"))
    assert [subject.name for subject in bench.subjects] == ["nano"]
    assert bench.missing == MISSING
    assert "robustree quickstart" in MISSING
    assert all(sample.leaf is not None for sample in bench.samples)


def test_what_the_quickstart_made_stands_beside_the_plain_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("tecoa", "hierarchical"):
        (tmp_path / "robustree-quickstart" / name).mkdir(parents=True)
        (tmp_path / "robustree-quickstart" / name / "robustree.json").touch()
    (tmp_path / "robustree-quickstart" / "report.html").touch()
    assert [source.name for source in demo._named(Options())] == ["nano", "tecoa", "hierarchical"]
    assert demo._audit(Options()) == Path("robustree-quickstart")
    assert [source.name for source in demo._named(Options(models=("nano",)))] == ["nano"]
    assert demo._audit(Options(models=("nano",))) is None


def test_refusals_are_one_sentence(house: Path, run: Run, tmp_path: Path) -> None:
    words = [house / "clip", "--data", house / "images", "--trees", house / "tree.json", "--device", "cpu"]
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        busy = run("demo", *words, "--port", port)
    assert (busy.code, busy.out) == (2, "")
    assert f"the page cannot be served at 127.0.0.1:{port} (" in busy.err
    empty = run("demo", *words, "--audit", tmp_path)
    assert empty.code == 2
    assert empty.err == (
        f"error: {str(tmp_path)!r} has no report.html: give an audit's directory, or write it with robustree report.\n"
    )
    (tmp_path / "report.html").touch()
    (tmp_path / "figures.json").write_text(json.dumps([1]))
    damaged = run("demo", *words, "--audit", tmp_path, "--port", "0")
    assert damaged.code == 2
    assert "holds no figures: write it again with robustree report" in damaged.err


def test_a_missing_web_library_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    refused = run("demo")
    assert (refused.code, refused.err) == (
        2,
        "error: the page needs gradio, which is not installed: pip install 'robustree[demo]'.\n",
    )


def test_the_command_serves_until_it_is_interrupted_and_leaves_nothing(house: Path, tmp_path: Path) -> None:
    for name in ("here", "home", "temporary"):
        (tmp_path / name).mkdir()
    places = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-u", "-m", "robustree", "demo", str(house / "clip"), "--port", "0", "--device", "cpu"]
    words += ["--data", str(house / "images"), "--trees", str(house / "tree.json")]
    page = subprocess.Popen(
        words, cwd=tmp_path / "here", env=os.environ | places, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    watchdog = threading.Timer(60, page.kill)
    watchdog.start()
    try:
        assert page.stdout is not None
        said = page.stdout.readline()
        assert said.startswith("open http://127.0.0.1:")
        with urllib.request.urlopen(said.split()[1], timeout=30) as answer:
            assert b"Attack one image, and watch it in the tree." in answer.read()
        page.send_signal(signal.SIGTERM)
        _, complaints = page.communicate(timeout=30)
    finally:
        watchdog.cancel()
        page.kill()
    assert page.returncode == 143
    assert "Traceback" not in complaints
    left = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert left == []
