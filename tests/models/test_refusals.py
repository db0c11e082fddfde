"""What cannot be loaded is refused in one sentence, and nothing in it is executed."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from robustree.models import adapt, load

Copy = Callable[..., Path]


class _Malice:
    """Unpickling this opens a file for writing."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _refusal(name: Path | str) -> str:
    with pytest.raises(ValueError) as caught:
        load(str(name))
    message = str(caught.value)
    assert "\n" not in message
    assert str(name) in message
    return message


def _reconfigure(directory: Path, **changes: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_missing_directory(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "nothing") == (
        f"there is no directory or file '{tmp_path / 'nothing'}': give 'nano', a directory with config.json and "
        "model.safetensors, open_clip's weights, or a hub id (owner/name)."
    )


def test_a_misspelt_name_is_no_hub_id() -> None:
    assert "there is no directory or file 'naon'" in _refusal("naon")


def test_a_hub_id_without_network_is_refused_at_once() -> None:
    _refusal("a-hub-owner/a-model")  # imports transformers, which takes seconds
    start = time.monotonic()
    message = _refusal("a-hub-owner/a-model")
    assert time.monotonic() - start < 2
    assert message.startswith("no model could be read at 'a-hub-owner/a-model' (")
    assert message.endswith("): give 'nano', a directory with config.json and model.safetensors, or a hub id.")


def test_a_directory_without_config(tmp_path: Path) -> None:
    assert _refusal(tmp_path) == (
        f"'{tmp_path}' has no config.json; a model directory holds config.json and model.safetensors, or "
        "open_clip_config.json and its weights: check the path."
    )


def test_a_damaged_config(clip_copy: Copy) -> None:
    directory = clip_copy()
    (directory / "config.json").write_text("{")
    assert "config.json' is not a valid JSON file" in _refusal(directory)


@pytest.mark.parametrize("kind", ["bert", "siglip2"])
def test_an_architecture_that_is_not_supported(clip_copy: Copy, kind: str) -> None:
    directory = clip_copy()
    (directory / "config.json").write_text(json.dumps({"model_type": kind}))
    assert _refusal(directory) == (
        f"'{directory}' holds a '{kind}' model; clip and siglip are supported: convert it or choose another."
    )


def test_an_architecture_that_nobody_knows(clip_copy: Copy) -> None:
    directory = clip_copy()
    _reconfigure(directory, model_type="hyperclip")
    assert "`hyperclip`" in _refusal(directory)


def test_code_that_comes_with_a_model_is_neither_asked_about_nor_run(
    clip_copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = clip_copy()
    (directory / "own.py").write_text(f"open({str(directory / 'touched')!r}, 'w')\n")
    _reconfigure(directory, model_type="hyperclip", auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"})
    assert "custom code" in _refusal(directory)
    assert not (directory / "touched").exists()
    assert "Do you wish" not in capsys.readouterr().out


def test_a_model_that_is_adapted_by_hand_is_checked_too() -> None:
    from transformers import BertConfig, BertModel

    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    with pytest.raises(ValueError, match="'mine' holds a 'bert' model"):
        adapt(BertModel(BertConfig(**size, vocab_size=9)), None, preprocessing=None, name="mine")  # type: ignore[arg-type]


def test_missing_weights(clip_copy: Copy) -> None:
    assert "no file named model.safetensors" in _refusal(clip_copy("model.safetensors"))


def test_damaged_weights(clip_copy: Copy) -> None:
    directory = clip_copy()
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "no model could be read" in _refusal(directory)


@pytest.mark.parametrize("damage", ["absent", "reshaped"])
def test_a_weight_that_transformers_would_replace_by_noise(clip_copy: Copy, damage: str) -> None:
    directory = clip_copy()
    weights = load_file(directory / "model.safetensors")
    shape = weights.pop("visual_projection.weight").shape
    if damage == "reshaped":
        weights["visual_projection.weight"] = torch.zeros(shape[0] + 1, shape[1])
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    message = _refusal(directory)
    assert "lacks 1 weights of its architecture" in message
    assert "'visual_projection.weight'" in message


def test_a_missing_tokenizer(clip_copy: Copy) -> None:
    """transformers makes up a tokenizer that reads every character as unknown."""
    directory = clip_copy("tokenizer.json", "tokenizer_config.json")
    assert "cannot tell 'dog' from 'cat': add the model's tokenizer.json" in _refusal(directory)


def test_an_interpolation_that_is_not_supported(clip_copy: Copy) -> None:
    directory = clip_copy()
    (directory / "preprocessor_config.json").write_text('{"resample": 1}')
    assert "has resample 1; 2 (bilinear) and 3 (bicubic) are supported" in _refusal(directory)


@pytest.mark.parametrize("protocol", ["torch", "plain", "sharded", "beside safetensors of another name"])
def test_a_malicious_pickle_is_refused_and_executes_nothing(clip_copy: Copy, protocol: str) -> None:
    directory = clip_copy("model.safetensors")
    touched, weights = directory / "touched", directory / "pytorch_model.bin"
    content = {"visual_projection.weight": _Malice(touched)}
    if protocol == "plain":
        weights.write_bytes(pickle.dumps(content, protocol=2))
    elif protocol == "sharded":
        weights = directory / "pytorch_model-00001-of-00001.bin"
        torch.save(content, weights)
        index = {"metadata": {}, "weight_map": {"visual_projection.weight": weights.name}}
        (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    else:
        torch.save(content, weights)
    if protocol.startswith("beside"):
        save_file({"image_norm": torch.ones(1)}, directory / "head.safetensors")
    assert _refusal(directory) == (
        f"'{weights}' is a pickle that the weights-only reader refuses, so it was not opened: "
        "convert it to model.safetensors."
    )
    assert not touched.exists()
    pickle.loads(pickle.dumps(_Malice(touched)))
    assert touched.exists()  # the weapon was loaded


@pytest.mark.parametrize("content", [b"", b"hello, world", b"\x80\x02]q\x00.", bytes(range(256))])
def test_bytes_that_are_no_weights(clip_copy: Copy, content: bytes) -> None:
    directory = clip_copy("model.safetensors")
    (directory / "pytorch_model.bin").write_bytes(content)
    assert "weights-only reader refuses" in _refusal(directory)
