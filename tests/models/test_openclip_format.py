"""OpenAI's and open_clip's layouts: the same numbers as an independent forward, the same bits after a round trip."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from robustree.models import VisionLanguageModel, adapt, load
from robustree.models.clip_tokenizer import clip_tokenizer
from robustree.models.loading import read
from robustree.models.openclip_config import config_record, read_config
from robustree.models.openclip_format import openclip_tensors, read_openclip, write_openclip
from tests.models.openclip_forward import OpenCLIP

SMALL: dict[str, Any] = {
    "embed_dim": 48,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 40, "patch_size": 8, "layers": 2, "width": 128, "head_width": 64, "mlp_ratio": 4.0},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "layers": 2, "width": 64, "heads": 1, "mlp_ratio": 4.0},
}
B32: dict[str, Any] = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "patch_size": 32, "layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "layers": 12, "width": 512, "heads": 8, "mlp_ratio": 4.0},
}
PROMPTS = ["a photo of a dog", "This is a photo of a very small kit fox!", "x"]
Tensors = dict[str, Tensor]


def _weights(model: dict[str, Any], seed: int = 0) -> Tensors:
    """Random weights of the right sizes under open_clip's names, biases and scales among them."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in OpenCLIP(model).state_dict().items():
        around = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
        spread = max(tensor.shape[-1] if tensor.ndim > 1 else 64, 1) ** -0.5
        tensors[name.removeprefix("text.")] = around + spread * torch.randn(tensor.shape, generator=draw)
    return tensors | {"logit_scale": torch.tensor(4.0)}


@pytest.fixture(scope="module")
def weights() -> Tensors:
    return _weights(SMALL)


@pytest.fixture
def put(weights: Tensors, tmp_path: Path) -> Callable[..., Path]:
    """Write weights (the small model's unless given) into a new directory; `config` goes beside them."""

    def write(
        tensors: Any = None, *, config: dict[str, Any] | None = SMALL, name: str = "open_clip_model.safetensors"
    ) -> Path:
        directory = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        directory.mkdir()
        content = weights if tensors is None else tensors
        if name.endswith(".safetensors"):
            save_file({key: value.clone() for key, value in content.items()}, directory / name)
        else:
            torch.save(content, directory / name)
        if config is not None:
            (directory / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
        return directory / name

    return write


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
    tensors = _weights(B32)
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
    tensors = {name: torch.zeros(tensor.shape, dtype=torch.float16) for name, tensor in _shapes(model).items()}
    parts = read_openclip(put(tensors, config=None, name="model.safetensors"), activation="gelu")
    _, config = openclip_tensors(parts)
    assert config_record(config)["model_cfg"] == model
    assert parts.preprocessing.resolution == side


def _shapes(model: dict[str, Any]) -> Tensors:
    with torch.device("meta"):
        state = OpenCLIP(model).state_dict()
    return {name.removeprefix("text."): tensor for name, tensor in state.items()}


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
    base, tuned = put(), _weights(SMALL, seed=5)
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
    tower = {name: tensor for name, tensor in _weights(larger).items() if name.startswith("visual.")}
    with pytest.raises(ValueError, match=r"'visual.transformer.resblocks' gives the size 3, and .* says 2"):
        read_openclip(put(tower, config=None), base=read(str(put().parent)))
    with pytest.raises(ValueError, match="holds a whole model, not a vision tower alone: leave the base out"):
        read_openclip(put(), base=read(str(put().parent)))


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
    tensors = {name: torch.zeros(tensor.shape) for name, tensor in _shapes(model).items()}
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
        load(str(put(_weights(config), config=config)))


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
def test_a_file_without_weights(put: Callable[..., Path], content: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load(str(put(content, name="weights.pt")))


def test_a_cut_off_safetensors_file(put: Callable[..., Path]) -> None:
    path = put()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is no readable safetensors file"):
        load(str(path))


def test_a_config_without_weights(put: Callable[..., Path]) -> None:
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
