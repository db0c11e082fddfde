"""OpenAI's and open_clip's layouts: the same numbers as an independent forward, the same bits after a round trip."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from robustree.models import VisionLanguageModel, adapt, load
from robustree.models.clip_tokenizer import clip_tokenizer
from robustree.models.loading import read
from robustree.models.openclip_config import config_record, read_config
from robustree.models.openclip_format import openclip_tensors, read_openclip, write_openclip
from tests.models.openclip_forward import B32, SMALL, OpenCLIP, Tensors, random_weights, shapes

PROMPTS = ["a photo of a dog", "This is a photo of a very small kit fox!", "x"]


def _logits(model: VisionLanguageModel, images: Tensor) -> Tensor:
    with torch.no_grad():
        shown = torch.nn.functional.normalize(model.image_encoder(images), dim=1)
        texts = torch.nn.functional.normalize(model.text_projection(model.text_features(PROMPTS)), dim=1)
    return model.logit_scale * shown @ texts.T


def _expected(model: dict[str, Any], tensors: Tensors, images: Tensor, tokenizer: Any = None) -> Tensor:
    """The independent forward on CLIP's pixels and tokens."""
    cut = {"truncation": True, "max_length": model["text_cfg"]["context_length"]}
    tokens = (tokenizer or clip_tokenizer())(PROMPTS, padding=True, return_tensors="pt", **cut)["input_ids"]
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)
    return OpenCLIP(model).load(tensors).logits((images - mean) / std, tokens)


def _assert_close(ours: Tensor, expected: Tensor) -> None:
    """Logits equal to 1e-6 of their largest possible value, the scale e^4."""
    torch.testing.assert_close(ours / math.exp(4), expected / math.exp(4), rtol=0, atol=1e-6)


def _images(side: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("layout", ["CLIP", "CustomTextCLIP", "linear projection", "half precision", "trainer"])
def test_logits_are_those_of_an_independent_forward(
    put: Callable[..., Path], weights: Tensors, layout: str, quick: bool
) -> None:
    changed: Any = dict(weights)
    if layout == "CustomTextCLIP":
        apart = ("visual.", "logit_scale")
        changed = {name if name.startswith(apart) else f"text.{name}": value for name, value in weights.items()}
    elif layout == "linear projection":
        changed["text_projection.weight"] = changed.pop("text_projection").T.contiguous()
    elif layout == "half precision":
        changed = {name: value.half() for name, value in weights.items()}
    elif layout == "trainer":
        inner = {f"module.{name}": value for name, value in weights.items()}
        changed = {"epoch": 3, "state_dict": inner, "optimizer": {"param_groups": [{"lr": 0.1}]}}
    config = SMALL | {"quick_gelu": quick}
    name = "open_clip_pytorch_model.bin" if layout == "trainer" else "open_clip_model.safetensors"
    path = put(changed, config=config, name=name)
    expected = _expected(config, {n: v.half().float() for n, v in weights.items()} if "half" in layout else weights,
                         _images(40))  # fmt: skip
    for where in (path, path.parent):
        _assert_close(_logits(load(str(where)), _images(40)), expected)
    other = _expected(config | {"quick_gelu": not quick}, weights, _images(40))
    assert (other - expected).abs().max() > 1e-3  # the activation is not all the same


def test_a_full_size_b32_in_open_ai_s_own_layout(put: Callable[..., Path]) -> None:
    """With the three numbers that only OpenAI's archives carry, so that nothing else has to say QuickGELU."""
    tensors = random_weights(B32)
    numbers = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    path = put(tensors | {name: torch.tensor(n) for name, n in numbers.items()}, config=None, name="ViT-B-32.pt")
    parts = read(str(path))
    assert parts.model.config.vision_config.hidden_act == parts.model.config.text_config.hidden_act == "quick_gelu"
    back, config = openclip_tensors(parts)
    assert back.keys() == tensors.keys() and all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert config_record(config)["model_cfg"] == B32
    expected = _expected(B32, tensors, _images(224, 1))
    model = adapt(parts.model, parts.tokenizer, preprocessing=parts.preprocessing, name="B/32")
    _assert_close(_logits(model, _images(224, 1)), expected)


@pytest.mark.parametrize(
    ("width", "patch", "side", "words", "shared", "layers"),
    [
        (768, 32, 224, 512, 512, 1),
        (768, 16, 224, 512, 512, 1),
        (1024, 14, 224, 768, 768, 1),
        (1024, 14, 336, 768, 768, 1),
        (384, 16, 240, 384, 384, 3),
    ],
    ids=["B/32", "B/16", "L/14", "L/14-336", "S/16-240"],
)
def test_the_geometry_is_read_off_the_tensors(
    put: Callable[..., Path], width: int, patch: int, side: int, words: int, shared: int, layers: int
) -> None:
    vision = SMALL["vision_cfg"] | {"width": width, "patch_size": patch, "image_size": side, "layers": layers}
    text = SMALL["text_cfg"] | {"width": words, "heads": words // 64, "vocab_size": 49408, "layers": layers}
    model = {"embed_dim": shared, "vision_cfg": vision, "text_cfg": text}
    tensors = {name: torch.zeros(tensor.shape, dtype=torch.float16) for name, tensor in shapes(model).items()}
    parts = read_openclip(put(tensors, config=None, name="model.safetensors"), activation="gelu")
    _, config = openclip_tensors(parts)
    assert config_record(config)["model_cfg"] == model
    assert parts.preprocessing.resolution == side


def test_transformers_to_open_clip_and_back_is_bitwise(clip_directory: Path, tmp_path: Path) -> None:
    """With a tokenizer that is not CLIP's, whose end is not the highest token."""
    write_openclip(tmp_path, read(str(clip_directory)))
    there, back = read(str(clip_directory)), read(str(tmp_path))
    ours, theirs = there.model.state_dict(), back.model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert config["model_cfg"]["text_cfg"]["pool_type"] == "eos"
    expected = _expected(
        config["model_cfg"], load_file(tmp_path / "open_clip_model.safetensors"), _images(16), there.tokenizer
    )
    assert torch.equal(_logits(load(str(clip_directory)), _images(16)), _logits(load(str(tmp_path)), _images(16)))
    _assert_close(_logits(load(str(tmp_path)), _images(16)), expected)
    assert back.preprocessing == there.preprocessing


def test_what_is_exported_and_read_again_is_exported_alike(put: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    path = put()
    write_openclip(tmp_path / "again", read(str(path.parent)))
    before, after = load_file(path), load_file(tmp_path / "again" / path.name)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert read_config(tmp_path / "again" / "open_clip_config.json") == read_config(
        path.parent / "open_clip_config.json"
    )


@pytest.mark.parametrize("form", ["bare", "visual.", "vision_encoder_state_dict", "module.model."])
def test_a_vision_tower_alone_is_joined_with_its_base(put: Callable[..., Path], weights: Tensors, form: str) -> None:
    """As FARE and TeCoA are published: the tuned image tower of a CLIP that stays as it was."""
    base, tuned = put(), random_weights(SMALL, seed=5)
    bare = {n.removeprefix("visual."): value for n, value in tuned.items() if n.startswith("visual.")}
    written: Any = {f"{form}{name}": value for name, value in bare.items()}
    if form in ("bare", "vision_encoder_state_dict"):
        written = bare if form == "bare" else {form: bare, "state_dict": {}, "epoch": 2}
    path = put(written, config=None, name="fare_eps_2.pt")
    joined = read_openclip(path, base=read(str(base.parent)))
    whole, _ = openclip_tensors(joined)
    assert all(torch.equal(whole[n], (tuned if n.startswith("visual.") else weights)[n]) for n in weights)
    assert joined.model.config.vision_config.hidden_act == "quick_gelu"
    with pytest.raises(ValueError, match="holds a vision tower alone: `robustree convert "):
        load(str(path))
    with pytest.raises(ValueError, match="the option says the activation is gelu, the base says quick_gelu"):
        read_openclip(path, base=read(str(base.parent)), activation="gelu")


def test_a_tower_of_another_model_is_refused(put: Callable[..., Path]) -> None:
    larger = SMALL | {"vision_cfg": SMALL["vision_cfg"] | {"layers": 3}}
    tower = {name: tensor for name, tensor in random_weights(larger).items() if name.startswith("visual.")}
    with pytest.raises(ValueError, match=r"'visual.transformer.resblocks' gives the size 3, and .* says 2"):
        read_openclip(put(tower, config=None), base=read(str(put().parent)))
    with pytest.raises(ValueError, match="holds a whole model, not a vision tower alone: leave the base out"):
        read_openclip(put(), base=read(str(put().parent)))
