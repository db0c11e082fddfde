"""`robustree harden`: checkpoints, the space of each method, interruption and resume, refusals."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from robustree.training import loop
from tests.cli.conftest import Run


@pytest.mark.parametrize("method", ["tecoa", "fare", "pmg-aft", "agft", "hierarchical"])
def test_each_method_leaves_a_checkpoint(run: Run, hardening: list[object], tmp_path: Path, method: str) -> None:
    ran = run("harden", method, *hardening, "--steps", 1)
    assert ran.code == 0
    content = json.loads((tmp_path / "run" / "robustree.json").read_text())
    assert content["head"]["space"]["name"] == ("poincare" if method == "hierarchical" else "sphere")
    first, following = ran.out.splitlines()
    assert first.split() == ["hardened", "model", str(tmp_path / "run")]
    assert "robustree audit" in following and str(tmp_path / "run-audit") in following


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from tensorboard's own imports
def test_tensorboard_curves_are_written_on_request(run: Run, hardening: list[object], tmp_path: Path) -> None:
    assert run("harden", "hierarchical", *hardening, "--steps", 1, "--text-lr", 0.5, "--tensorboard").code == 0
    assert len(list((tmp_path / "run" / "tensorboard").glob("events*"))) == 1
    recipe = json.loads((tmp_path / "run" / "robustree.json").read_text())["record"]["recipe"]
    assert recipe["text_lr"] == 0.5


def test_options_reach_the_recipe(run: Run, hardening: list[object], tmp_path: Path) -> None:
    words = ["--threat.eps", "2/255", "--attack.steps", 1, "--vic", "1/2", "--space", "poincare", "--curvature", "0.1"]
    assert run("harden", "hierarchical", *hardening, *words, "--steps", 1, "--no-train-text").code == 0
    recipe = json.loads((tmp_path / "run" / "robustree.json").read_text())["record"]["recipe"]
    assert recipe["threat"]["eps"] == 2 / 255
    assert (recipe["attack"]["steps"], recipe["steps"], recipe["method"]["vic"]) == (1, 1, 0.5)
    assert recipe["space"] == {"kind": "poincare", "curvature": 0.1}
    assert recipe["method"]["train_text"] is False


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_interrupted_run_resumes_exactly(
    run: Run,
    hardening: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
    word: str,
) -> None:
    words = ["harden", "tecoa", *hardening]
    assert run(*words[:-3], tmp_path / "whole", "--device", "cpu").code == 0
    original, calls = loop.training_step, []

    def step(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return original(*arguments)

    monkeypatch.setattr(loop, "training_step", step)
    stopped = run(*words)
    assert stopped.code == code
    assert stopped.err.splitlines()[-1] == (
        f"{word} after step 2 of 4: the state is in {tmp_path / 'run'}; run the same command to go on."
    )
    assert not (tmp_path / "run" / "robustree.json").exists()
    assert run(*words).code == 0
    assert len(calls) == 4
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_finished_run_is_not_done_again(run: Run, hardening: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("harden", "tecoa", *hardening, "--steps", 1)
    monkeypatch.setattr("robustree.cli.harden.harden", None)
    assert run("harden", "tecoa", *hardening, "--steps", 1).out == first.out


def test_another_run_in_the_same_directory_is_refused(run: Run, hardening: list[object], tmp_path: Path) -> None:
    assert run("harden", "tecoa", *hardening, "--steps", 1).code == 0
    before = (tmp_path / "run" / "robustree.json").read_bytes()
    ran = run("harden", "tecoa", *hardening, "--steps", 2)
    assert (ran.code, ran.err) == (
        2,
        f"error: {str(tmp_path / 'run')!r} holds a model that was hardened with another recipe: "
        "choose another --output.\n",
    )
    assert (tmp_path / "run" / "robustree.json").read_bytes() == before


def test_a_loss_that_is_not_finite_ends_with_1(
    run: Run, hardening: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(model: Any, raw: Any, *rest: Any) -> Any:
        return raw.text_projection.weight.sum() * 0 + next(raw.image_encoder.parameters()).sum() * torch.nan, {}

    monkeypatch.setattr(loop, "training_step", step)
    ran = run("harden", "tecoa", *hardening)
    assert ran.code == 1
    assert ran.err.startswith("error: the loss (nan)") and ran.err.count("\n") == 1
    assert not (tmp_path / "run" / "robustree.json").exists()


def test_a_full_disk_says_what_is_kept(
    run: Run, hardening: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loop, "save_state", full)
    ran = run("harden", "tecoa", *hardening)
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == (
        "error: the disk is full; the last saved state, if there is one, stays in "
        f"{tmp_path / 'run'}; run the same command to go on."
    )


def test_wrong_places_are_named(run: Run, house: Path, tmp_path: Path) -> None:
    output = ["--output", tmp_path / "run", "--device", "cpu"]
    tree = ["--trees", house / "tree.json"]
    cases = [
        (["--data", house / "absent", *tree], f"data is {str(house / 'absent')!r}; give a folder of class sub-folders"),
        (["--data", house / "images"], f"the data {str(house / 'images')!r} comes without a label tree"),
        (["--data", house / "images", "--trees", house / "no.json"], f"{house / 'no.json'}: the file cannot be read"),
        (["--trees", "unicod"], "there is no tree 'unicod' (did you mean 'unicode'?): give tree files or shipped"),
        (["--trees", "unicode", house / "tree.json"], "--trees mixes shipped trees (unicode) and files"),
        (["--model", house / "absent/model", "--data", house / "images", *tree], "there is no directory"),
        (["--model", "nanno"], "there is no model 'nanno' (did you mean 'nano'?)"),
        (["--data", house / "images", *tree, "--model", house / "clip", "--batch-size", 99], "the data has 12 images"),
    ]
    for words, sentence in cases:
        ran = run("harden", "tecoa", *words, *output)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith(f"error: {sentence}") and ran.err.count("\n") == 1
        assert not (tmp_path / "run").exists()
