"""`robustree convert`: what it writes opens, and what it refuses it refuses in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPModel

from tests.cli.conftest import Run


def test_there_and_back_is_the_same_model(run: Run, house: Path, hardened: Path, tmp_path: Path) -> None:
    there = run("convert", hardened, "--to", "openclip", "--output", tmp_path / "there")
    assert (there.code, there.err) == (0, "")
    assert there.out.splitlines() == [
        f"written  {tmp_path / 'there'}",
        f'next     open_clip.create_model_from_pretrained("local-dir:{tmp_path / "there"}")',
    ]
    back = run("convert", tmp_path / "there", "--to", "transformers", "--output", tmp_path / "back")
    assert back.code == 0 and back.out.splitlines()[1] == f"next     robustree audit {tmp_path / 'back'} ..."
    before, after = (load_file(where / "model.safetensors") for where in (hardened, tmp_path / "back"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    CLIPModel.from_pretrained(tmp_path / "back")


def test_a_robust_image_tower_alone_becomes_a_whole_model(
    run: Run, house: Path, tmp_path: Path, auditing: list[object]
) -> None:
    assert run("convert", house / "clip", "--to", "openclip", "--output", tmp_path / "there").code == 0
    tensors = load_file(tmp_path / "there" / "open_clip_model.safetensors")
    tuned = {name.removeprefix("visual."): 1.5 * t for name, t in tensors.items() if name.startswith("visual.")}
    torch.save({"vision_encoder_state_dict": tuned, "epoch": 2}, tmp_path / "tecoa.pt")
    alone = run("convert", tmp_path / "tecoa.pt", "--to", "transformers", "--output", tmp_path / "tecoa")
    assert (alone.code, alone.out) == (2, "") and "holds a vision tower alone: `robustree convert" in alone.err
    assert not (tmp_path / "tecoa").exists()
    words = ["convert", tmp_path / "tecoa.pt", "--base", house / "clip", "--to", "transformers"]
    assert run(*words, "--output", tmp_path / "tecoa").code == 0
    written, base = load_file(tmp_path / "tecoa" / "model.safetensors"), load_file(house / "clip" / "model.safetensors")
    for name, tensor in written.items():
        factor = 1.5 if name.startswith("visi") or name == "visual_projection.weight" else 1
        torch.testing.assert_close(tensor, factor * base[name], rtol=0, atol=0)
    assert run("audit", tmp_path / "tecoa", *auditing, "--trees", house / "tree.json").code == 0


def test_bare_weights_need_the_config_beside_them(run: Run, house: Path, tmp_path: Path) -> None:
    """The tiny towers are 32 wide, for which no convention says how many heads they have."""
    assert run("convert", house / "clip", "--to", "openclip", "--output", tmp_path / "there").code == 0
    config = (tmp_path / "there" / "open_clip_config.json").rename(tmp_path / "open_clip_config.json")
    weights = tmp_path / "there" / "open_clip_model.safetensors"
    words = ["convert", weights, "--to", "transformers", "--output", tmp_path / "back", "--activation"]
    assert "how many heads they have is in no tensor" in run(*words, "quick_gelu").err
    config.rename(weights.parent / config.name)
    refused = run(*words, "gelu")
    assert (refused.code, refused.out) == (2, "")
    assert "the option says the activation is gelu, open_clip_config.json says quick_gelu" in refused.err
    assert not (tmp_path / "back").exists()
    assert run(*words, "quick_gelu").code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--to", "openclip", "--activation", "gelu"], "--activation is about a weights file, and "),
        (["--to", "openclip", "--base", "nano"], "--base is about a weights file, and "),
        (["--to", "onnx"], "--to: "),
    ],
)
def test_options_that_mean_nothing_are_refused(
    run: Run, house: Path, tmp_path: Path, words: list[str], sentence: str
) -> None:
    ran = run("convert", house / "clip", *words, "--output", tmp_path / "out")
    assert ran.code == 2 and sentence.rstrip(": ") in ran.err and ran.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_open_clip_cannot_say_is_refused_and_leaves_no_directory(run: Run, house: Path, tmp_path: Path) -> None:
    clip = shutil.copytree(house / "clip", tmp_path / "clip")
    config = json.loads((clip / "config.json").read_text())
    config["text_config"]["layer_norm_eps"] = 1e-6
    (clip / "config.json").write_text(json.dumps(config))
    ran = run("convert", clip, "--to", "openclip", "--output", tmp_path / "out")
    assert ran.code == 2 and "[1e-06, 1e-05] in LayerNorm; open_clip has gelu or quick_gelu in both" in ran.err
    assert not (tmp_path / "out").exists()


def test_the_built_in_model_goes_to_open_clip_with_its_tokenizer(run: Run, tmp_path: Path) -> None:
    assert run("convert", "nano", "--to", "openclip", "--output", tmp_path).code == 0
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    text = config["model_cfg"]["text_cfg"]
    assert (text["pool_type"], text["eos_id"], text["hf_tokenizer_name"]) == ("eos", 1, ".")
    assert config["preprocess_cfg"]["mean"] == [0.5, 0.5, 0.5]
    assert (tmp_path / "tokenizer.json").is_file()
