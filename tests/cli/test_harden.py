"""`robustree harden`: checkpoints, the space of each method, interruption and resume, refusals."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import tarfile
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from robustree.lock import sole_writer
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # from wandb's own imports
def test_curves_for_wandb_are_written_on_request(
    run: Run, hardening: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert run("harden", "tecoa", *hardening, "--steps", 1, "--wandb").code == 0
    assert len(list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))) == 1


def test_options_reach_the_recipe(run: Run, hardening: list[object], tmp_path: Path) -> None:
    words = ["--threat.eps", "2/255", "--attack.steps", 1, "--vic", "1/2", "--space", "poincare", "--curvature", "0.1"]
    assert run("harden", "hierarchical", *hardening, *words, "--steps", 1, "--no-train-text").code == 0
    recipe = json.loads((tmp_path / "run" / "robustree.json").read_text())["record"]["recipe"]
    assert recipe["threat"]["eps"] == 2 / 255
    assert (recipe["attack"]["steps"], recipe["steps"], recipe["method"]["vic"]) == (1, 1, 0.5)
    assert recipe["space"] == {"kind": "poincare", "curvature": 0.1}
    assert recipe["method"]["train_text"] is False


def test_how_a_run_computes_is_no_part_of_it_and_its_end_says_what_it_cost(
    run: Run, hardening: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["harden", "tecoa", *hardening]
    line = run(*words[:-3], tmp_path / "plain", "--device", "cpu").out.splitlines()[1]
    assert re.fullmatch(
        r"cost {12}[\d.,]+ images/s, [\d.e-]+ GFLOP an image, [\d.e-]+ % of the matmul peak, peak memory \d+\.\d GB",
        line,
    )
    asked: list[dict[str, bool]] = []

    def accelerated(*encoders: Any, **how: bool) -> Any:
        asked.append(how)
        return nullcontext()

    assert run(*words, "--activation-checkpointing").code == 0
    monkeypatch.setattr(loop, "accelerated", accelerated)
    assert run(*words[:-3], tmp_path / "compiled", "--device", "cpu", "--compile").code == 0
    assert asked == [{"compiled": True, "activation_checkpointing": False}]
    for file in ("model.safetensors", "robustree.json", "log.csv"):
        whole = (tmp_path / "plain" / file).read_bytes()
        assert all((tmp_path / name / file).read_bytes() == whole for name in ("run", "compiled"))


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGUSR1, 138, "terminated")],
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
            os.kill(os.getpid(), number)  # launchers pass on what the process has received from the terminal already
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


def test_another_ctrl_c_later_ends_at_once(
    run: Run, hardening: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second Ctrl-C did not end the step")

    monkeypatch.setattr("robustree.cli.endings.ECHO", 0.01)
    monkeypatch.setattr(loop, "training_step", step)
    ran = run("harden", "tecoa", *hardening)
    assert (ran.code, os.listdir(tmp_path / "run")) == (130, [])


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
QUOTA = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
IN_WORDS = SafetensorError(f"Error while serializing: I/O error: {os.strerror(errno.ENOSPC)} (os error 28)")


@pytest.mark.parametrize("name", [".log.csv-", ".state.safetensors-", ".writing-", "model.safetensors", "fsync"])
@pytest.mark.parametrize("error", [FULL, QUOTA, IN_WORDS], ids=["full", "quota", "words"])
def test_a_full_disk_says_what_is_kept_and_the_same_command_goes_on(
    run: Run, hardening: list[object], tmp_path: Path, name: str, error: Exception
) -> None:
    words = ["harden", "tecoa", *hardening, "--steps", 2, "--save-every", 1]
    mkstemp, mkdtemp, calls = tempfile.mkstemp, tempfile.mkdtemp, []

    def refuse(original: Any) -> Any:
        def make(*arguments: Any, **named: Any) -> Any:
            calls.append(named["prefix"])
            if named["prefix"] == name and (len(calls) > 2 or name == ".writing-"):  # not the first save
                raise error
            return original(*arguments, **named)

        return make

    def full(*_: Any, **__: Any) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", refuse(mkstemp))
        patch.setattr(tempfile, "mkdtemp", refuse(mkdtemp))
        if name == "model.safetensors":
            patch.setattr("transformers.modeling_utils.safe_save_file", full)
        if name == "fsync":
            patch.setattr(os, "fsync", full)
        ran = run(*words)
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == (
        "error: the disk is full; the last saved state, if there is one, stays in "
        f"{tmp_path / 'run'}; run the same command to go on."
    )
    assert not [file for file in os.listdir(tmp_path / "run") if file.startswith(".") or file == "robustree.json"]
    assert run(*words).code == 0
    whole = [tmp_path / "whole" if word == tmp_path / "run" else word for word in words]
    assert run(*whole).code == 0
    for file in ("model.safetensors", "log.csv"):
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def _terminate_in_the_third_step(monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = loop.training_step, []

    def step(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(loop, "training_step", step)


@pytest.mark.filterwarnings("default::robustree.training.ChangedCourseWarning")
def test_a_run_says_in_one_line_that_it_goes_on_from_an_older_state(
    run: Run, hardening: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["harden", "tecoa", *hardening, "--save-every", 1]
    _terminate_in_the_third_step(monkeypatch)
    assert run(*words).code == 143
    state = tmp_path / "run" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    ran = run(*words)
    assert ran.code == 0
    said = [line for line in ran.err.splitlines() if line.startswith("warning: ")]
    assert len(said) == 1
    assert said[0].startswith(f"warning: '{state}' is damaged (")
    assert said[0].endswith("): the run goes on from the state before it, of step 2.")


def test_too_little_memory_ends_with_1(
    run: Run, hardening: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(loop, "training_step", step)
    ran = run("harden", "tecoa", *hardening, "--micro-batches", 4)
    assert ran.code == 1
    assert ran.err == (
        "error: memory ran out at step 1 with micro-batches of 1 images: free some memory and go on, or begin again "
        "with more micro_batches.\n"
    )


def test_a_second_run_in_the_same_directory_is_refused(run: Run, hardening: list[object], tmp_path: Path) -> None:
    words = ["harden", "tecoa", *hardening, "--steps", 1]
    with sole_writer(tmp_path / "run" / ".lock", doing="another run"):
        ran = run(*words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"error: another run is writing into {str(tmp_path / 'run')!r}: wait for it, or choose another directory.\n"
    )
    assert run(*words).code == 0


def test_bf16_reaches_the_recipe(run: Run, hardening: list[object], tmp_path: Path) -> None:
    assert run("harden", "tecoa", *hardening, "--steps", 1, "--precision", "bf16").code == 0
    recipe = json.loads((tmp_path / "run" / "robustree.json").read_text())["record"]["recipe"]
    assert recipe["precision"] == "bf16"


def test_a_checkpoint_that_was_damaged_is_refused_by_name(
    run: Run, hardening: list[object], auditing: list[object], tmp_path: Path
) -> None:
    assert run("harden", "tecoa", *hardening, "--steps", 1).code == 0
    weights = tmp_path / "run" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    ran = run("audit", tmp_path / "run", *auditing)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"error: {str(weights)!r} is not the file that was written (its sha256 differs): it was damaged or replaced; "
        "restore it or harden again.\n"
    )


def _shards(house: Path, root: Path) -> Path:
    """The images of the house in four tars, three in each."""
    root.mkdir()
    for number, file in enumerate(sorted((house / "images").glob("*/*.png"))):
        with tarfile.open(root / f"{number % 4}.tar", "a") as archive:
            archive.add(file, f"{number}.png")
            member = tarfile.TarInfo(f"{number}.cls")
            member.size = len(file.parent.name)
            archive.addfile(member, io.BytesIO(file.parent.name.encode()))
    return root


def test_shards_are_hardened_on_through_a_window_and_an_interrupted_run_goes_on(
    run: Run, house: Path, hardening: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = _shards(house, tmp_path / "shards")
    words = ["harden", "tecoa", *hardening, "--data", shards, "--window", 8]
    assert run(*words, "--output", tmp_path / "whole", "--index", tmp_path / "index").code == 0
    assert not (shards / ".robustree").exists() and len(list((tmp_path / "index").iterdir())) == 2
    _terminate_in_the_third_step(monkeypatch)
    assert [run(*words).code, run(*words).code] == [143, 0]
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
    (shards / "2.tar").unlink()
    ran = run(*words, "--output", tmp_path / "other")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: the shard '2.tar' is missing in '{shards}': ") and ran.err.count("\n") == 1
    ran = run("harden", "tecoa", *hardening, "--window", 8, "--output", tmp_path / "other")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "images' holds no shards: only tar and parquet files are read through a window" in ran.err


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
