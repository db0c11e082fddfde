"""What is refused when weights in OpenAI's and open_clip's layouts are read or written, each with its reason."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.models import load
from robustree.models.loading import read
from robustree.models.openclip_format import openclip_tensors, read_openclip
from tests.models.openclip_forward import SMALL, Tensors, random_weights, shapes


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"visual.ln_post.bias": None}, "the tensor 'visual.ln_post.bias' is missing"),
        ({"visual.conv1.weight": None}, "the tensor 'visual.conv1.weight' is missing"),
        ({"transformer.resblocks.1.mlp.c_fc.bias": torch.zeros(255)}, "'transformer.resblocks.1.mlp.c_fc.bias' has"),
        ({"visual.positional_embedding": torch.zeros(27, 128)}, "'visual.positional_embedding' has shape (27, 128)"),
        ({"visual.proj": torch.zeros(48)}, "'visual.proj' has shape (48,)"),
        ({"logit_bias": torch.zeros(())}, "'logit_bias' belongs to no ViT CLIP"),
        ({"text_projection.bias": torch.zeros(48)}, "'text_projection.bias' belongs to no ViT CLIP"),
        ({"transformer.resblocks.0.ls_1.gamma": torch.zeros(64)}, "'transformer.resblocks.0.ls_1.gamma' belongs to no"),
        ({"visual.layer1.0.conv1.weight": torch.zeros(1)}, "'visual.layer1.0.conv1.weight' is of a ResNet"),
        ({"vision_model.x": torch.zeros(1)}, "'vision_model.x' is a name of transformers' layout: give the directory"),
        ({"visual.trunk.x": torch.zeros(1)}, "'visual.trunk.x' is of a timm tower"),
        ({"text_decoder.x": torch.zeros(1)}, "'text_decoder.x' is of a CoCa: name the model as the open_clip library"),
    ],
)  # fmt: skip
def test_a_wrong_tensor_is_named(
    put: Callable[..., Path], weights: Tensors, damage: dict[str, Tensor | None], said: str
) -> None:
    changed = {name: tensor for name, tensor in {**weights, **damage}.items() if tensor is not None}
    for config in (SMALL, None):
        with pytest.raises(ValueError) as caught:
            read_openclip(put(changed, config=config), activation="quick_gelu")
        assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "key", "value", "tensor"),
    [
        ("vision_cfg", "patch_size", 16, "visual.conv1.weight"),
        ("vision_cfg", "image_size", 48, "visual.positional_embedding"),
        ("vision_cfg", "layers", 12, "visual.transformer.resblocks"),
        ("vision_cfg", "width", 256, "visual.transformer.resblocks.0.ln_1.weight"),
        ("text_cfg", "context_length", 64, "positional_embedding"),
        ("text_cfg", "vocab_size", 50000, "token_embedding.weight"),
        ("text_cfg", "mlp_ratio", 2.0, "transformer.resblocks.0.mlp.c_fc.weight"),
        ("", "embed_dim", 64, "visual.proj"),
    ],
)
def test_a_config_of_another_model_is_refused(
    put: Callable[..., Path], section: str, key: str, value: Any, tensor: str
) -> None:
    config = json.loads(json.dumps(SMALL))
    (config[section] if section else config)[key] = value
    with pytest.raises(
        ValueError,
        match=f"'{tensor}' gives the size .*, and open_clip_config.json says {128 if key == 'mlp_ratio' else value}",
    ):
        load(str(put(config=config).parent))


def test_an_image_may_be_larger_than_its_patches_cover(put: Callable[..., Path]) -> None:
    config = SMALL | {"vision_cfg": SMALL["vision_cfg"] | {"image_size": 45}}
    assert load(str(put(config=config))).image_encoder.preprocessing.resolution == 45


def test_the_activation_is_never_guessed(put: Callable[..., Path], weights: Tensors) -> None:
    with pytest.raises(
        ValueError, match=r"no tensor says whether it has QuickGELU .* or convert it with `robustree convert"
    ):
        load(str(put(config=None)))
    with pytest.raises(
        ValueError, match=r"the option says the activation is gelu, open_clip_config\.json says quick_gelu"
    ):
        read_openclip(put(), activation="gelu")
    openai = weights | {"input_resolution": torch.tensor(40)}
    with pytest.raises(
        ValueError, match=r"config\.json says the activation is gelu, the entry 'input_resolution', of Open"
    ):
        load(str(put(openai, config=SMALL | {"quick_gelu": False})))
    assert read_openclip(put(config=None), activation="gelu").model.config.text_config.hidden_act == "gelu"


def test_heads_that_no_tensor_tells_are_asked_for(put: Callable[..., Path]) -> None:
    vision = {"width": 1280, "head_width": 80, "layers": 1, "patch_size": 14, "image_size": 28, "mlp_ratio": 1.0}
    model = SMALL | {"vision_cfg": vision}
    tensors = {name: torch.zeros(tensor.shape) for name, tensor in shapes(model).items()}
    with pytest.raises(ValueError, match=r"'visual\.transformer' are 1280 wide, and how many heads they have is in no"):
        read_openclip(put(tensors, config=None), activation="gelu")
    assert read(str(put(tensors, config=model).parent)).model.config.vision_config.num_attention_heads == 16


@pytest.mark.parametrize(
    ("section", "change", "key"),
    [
        ("vision_cfg", {"layers": [3, 4, 6, 3]}, "vision_cfg.layers"),
        ("vision_cfg", {"timm_model_name": "convnext_base"}, "vision_cfg.timm_model_name"),
        ("vision_cfg", {"attentional_pool": True}, "vision_cfg.attentional_pool"),
        ("vision_cfg", {"pool_type": "avg"}, "vision_cfg.pool_type"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "text_cfg.hf_model_name"),
        ("text_cfg", {"embed_cls": True}, "text_cfg.embed_cls"),
        ("text_cfg", {"pool_type": "last"}, "text_cfg.pool_type"),
        ("", {"multimodal_cfg": {}}, "multimodal_cfg"),
        ("", {"init_logit_bias": -10}, "init_logit_bias"),
    ],
)
def test_other_architectures_are_sent_to_the_library(
    put: Callable[..., Path], section: str, change: dict[str, Any], key: str
) -> None:
    config = json.loads(json.dumps(SMALL))
    (config[section] if section else config).update(change)
    directory = put(config=config).parent
    with pytest.raises(ValueError) as caught:
        load(str(directory))
    assert str(caught.value) == (
        f"'{directory / 'open_clip_config.json'}' has '{key}', so this is no plain ViT CLIP: the open_clip library "
        f"reads it; pip install 'robustree[open_clip]' and name it open_clip:local-dir:{directory}."
    )


def test_a_text_that_is_pooled_as_transformers_cannot(put: Callable[..., Path]) -> None:
    config = SMALL | {"text_cfg": SMALL["text_cfg"] | {"pool_type": "eos", "eos_id": 2}}
    with pytest.raises(ValueError, match="pools the token 2, which transformers cannot"):
        load(str(put(config=config)))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model_cfg": {"embed_dim": 4}}', '{"model_cfg": null}', "\x00"])
def test_a_damaged_config(put: Callable[..., Path], content: str) -> None:
    path = put()
    (path.parent / "open_clip_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"open_clip_config\.json' is damaged \("):
        load(str(path))


def test_a_preprocessing_of_its_own_is_read_and_an_unknown_one_refused(put: Callable[..., Path]) -> None:
    path = put()
    config = path.parent / "open_clip_config.json"
    pixels = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "resize_mode": "squash"}
    config.write_text(json.dumps({"model_cfg": SMALL, "preprocess_cfg": pixels}))
    read_back = load(str(path)).image_encoder.preprocessing
    assert (read_back.mean, read_back.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (read_back.crop, read_back.interpolation) == (False, "bilinear")
    config.write_text(json.dumps({"model_cfg": SMALL, "preprocess_cfg": pixels | {"resize_mode": "longest"}}))
    with pytest.raises(ValueError, match="the preprocessing is bilinear with resize mode longest"):
        load(str(path))


@pytest.mark.parametrize(
    "change", [{"vocab_size": 500}, {"hf_tokenizer_name": "bert-base"}, {"pool_type": "eos", "eos_id": 7}]
)
def test_a_tokenizer_that_is_not_clip_s_must_lie_beside(put: Callable[..., Path], change: dict[str, Any]) -> None:
    config = SMALL | {"text_cfg": SMALL["text_cfg"] | change}
    with pytest.raises(
        ValueError, match=r"its tokenizer, of \d+ tokens, is not CLIP's own of 49408: put its tokenizer"
    ):
        load(str(put(random_weights(config), config=config)))


def test_a_torchscript_archive_is_refused_with_its_conversion(tmp_path: Path) -> None:
    path = tmp_path / "ViT-B-32.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"archive/{name}", b"")
    with pytest.raises(ValueError, match=r"is a TorchScript archive, which is a program: write its weights once with"):
        load(str(path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "holds no named tensors"),
        ({}, "holds no named tensors"),
        ({"state_dict": {}}, "holds no named tensors"),
        ({"visual.proj": torch.zeros(1), "args": "x"}, "has 'args', which is no tensor, among its weights"),
        (Path("x"), "is a pickle that the weights-only reader refuses"),
    ],
)
def test_a_file_withoutrandom_weights(put: Callable[..., Path], content: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load(str(put(content, name="weights.pt")))


def test_a_cut_off_safetensors_file(put: Callable[..., Path]) -> None:
    path = put()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is no readable safetensors file"):
        load(str(path))


def test_a_config_withoutrandom_weights(put: Callable[..., Path]) -> None:
    path = put()
    path.unlink()
    with pytest.raises(
        ValueError, match=r"has open_clip_config.json but no open_clip_model\.safetensors or open_clip_p"
    ):
        load(str(path.parent))


def test_only_a_clip_that_open_clip_can_say_is_exported(siglip_directory: Path, clip_directory: Path) -> None:
    with pytest.raises(ValueError, match="this is a 'siglip' model"):
        openclip_tensors(read(str(siglip_directory)))
    parts = read(str(clip_directory))
    parts.model.config.text_config.hidden_act = "gelu"
    with pytest.raises(ValueError, match="the towers have the activations gelu, quick_gelu"):
        openclip_tensors(parts)
