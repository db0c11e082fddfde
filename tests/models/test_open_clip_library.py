"""ResNets and CoCa through the open_clip library, of which a stand-in with its call signatures is installed here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from robustree.checkpoint import load_checkpoint, save_checkpoint
from robustree.models import load
from robustree.taxonomy import Forest
from robustree.tree_model import build_tree_model

CONFIGS: dict[str, dict[str, Any]] = {
    "RN50": {"embed_dim": 8, "vision_cfg": {"layers": [3, 4, 6, 3], "width": 4}, "text_cfg": {"width": 6}},
    "coca_ViT-B-32": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}, "multimodal_cfg": {}, "custom_text": True},
}
TAGS: dict[str, dict[str, dict[str, Any]]] = {
    "RN50": {"openai": {"quick_gelu": True}, "yfcc15m": {}},
    "coca_ViT-B-32": {"laion2b_s13b_b90k": {}},
}


class _Visual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 8, stride=8), nn.BatchNorm2d(4)
        self.pool = nn.Linear(16, 8)
        self.image_size = (16, 16)
        self.preprocess_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bicubic",
                               "resize_mode": "shortest", "size": (16, 16), "mode": "RGB", "fill_color": 0}  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.bn1(self.conv1(x)).tanh().flatten(1))


class _Text(nn.Module):
    """What both of the library's classes have of a text tower."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(300, 6)
        self.text_projection: nn.Parameter | None = nn.Parameter(torch.randn(6, 8))

    def pooled(self, text: Tensor) -> Tensor:
        x = self.token_embedding(text).mean(1).tanh()
        return x if self.text_projection is None else x @ self.text_projection


class _CLIP(_Text):
    def __init__(self) -> None:
        super().__init__()
        self.visual, self.logit_scale = _Visual(), nn.Parameter(torch.tensor(3.0))

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
        return nn.functional.normalize(self.visual(image), dim=-1) if normalize else self.visual(image)

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        return nn.functional.normalize(self.pooled(text), dim=-1) if normalize else self.pooled(text)


class _CoCa(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.visual, self.logit_scale = _Text(), _Visual(), nn.Parameter(torch.tensor(3.0))

    def encode_image(self, images: Tensor, normalize: bool = True) -> Tensor:
        return nn.functional.normalize(self.visual(images), dim=-1) if normalize else self.visual(images)

    def encode_text(self, text: Tensor, normalize: bool = True) -> Tensor:
        return nn.functional.normalize(self.text.pooled(text), dim=-1) if normalize else self.text.pooled(text)


class _Library(ModuleType):
    """The functions that are called, as open_clip 3.3 declares them, and what was asked for."""

    def __init__(self) -> None:
        super().__init__("open_clip")
        self.asked: list[dict[str, Any]] = []

    def create_model(
        self, model_name: str, pretrained: str | None = None, load_weights: bool = True, precision: str = "fp32",
        device: str = "cpu", jit: bool = False, force_quick_gelu: bool = False, force_custom_text: bool = False,
        force_patch_dropout: float | None = None, force_image_size: int | None = None,
        force_preprocess_cfg: dict[str, Any] | None = None, force_context_length: int | None = None,
        pretrained_image: bool = False, pretrained_text: bool = True, pretrained_image_path: str | None = None,
        pretrained_text_path: str | None = None, cache_dir: str | None = None, output_dict: bool | None = None,
        require_pretrained: bool = False, weights_only: bool = True, **model_kwargs: Any,
    ) -> nn.Module:  # fmt: skip
        self.asked.append({"name": model_name, "tag": pretrained, "quick_gelu": force_quick_gelu})
        assert require_pretrained and weights_only
        config = self.get_model_config(model_name)
        if config is None or (pretrained and pretrained not in TAGS[model_name]):
            raise RuntimeError(f"Model config for '{model_name}' not found in built-ins.")
        torch.manual_seed(0)
        model = _CoCa() if "multimodal_cfg" in config else _CLIP()
        if model_name.startswith("local-dir:"):
            weights = Path(model_name.removeprefix("local-dir:")) / "open_clip_model.safetensors"
            model.load_state_dict(load_file(weights), strict=True)
        return model.train()

    def get_model_config(self, model_name: str) -> dict[str, Any] | None:
        if model_name.startswith("local-dir:"):
            record = Path(model_name.removeprefix("local-dir:")) / "open_clip_config.json"
            return json.loads(record.read_text())["model_cfg"]
        return CONFIGS.get(model_name)

    def get_pretrained_cfg(self, model: str, tag: str) -> dict[str, Any]:
        return TAGS.get(model, {}).get(tag, {})

    def get_tokenizer(
        self, model_name: str = "", context_length: int | None = None, cache_dir: str | None = None, **kwargs: Any
    ) -> Callable[[list[str]], Tensor]:
        return lambda texts: torch.tensor([[*text.encode()[:12]] + [0] * (12 - len(text)) for text in texts])


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> _Library:
    import importlib.machinery

    found = _Library()
    found.__spec__ = importlib.machinery.ModuleSpec("open_clip", None)
    monkeypatch.setitem(sys.modules, "open_clip", found)
    return found


def _images() -> Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", ["RN50/openai", "coca_ViT-B-32/laion2b_s13b_b90k"])
def test_embeddings_are_the_library_s_own_before_they_are_normalised(library: _Library, name: str) -> None:
    model = load(f"open_clip:{name}")
    theirs: Any = library.create_model(*name.split("/"), require_pretrained=True).eval()
    images, mean, std = _images(), torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    pixels = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    tokens = library.get_tokenizer("")(["dog", "cat"])
    with torch.no_grad():
        torch.testing.assert_close(model.image_encoder(images), theirs.encode_image(pixels, normalize=False))
        texts = model.text_projection(model.text_features(["dog", "cat"]))
        torch.testing.assert_close(texts, theirs.encode_text(tokens, normalize=False))
    assert model.logit_scale == pytest.approx(20.0855, rel=1e-4)
    assert not model.image_encoder.tower.get_submodule("visual.bn1").training
    architecture, tag = name.split("/")
    assert library.asked[0] == {"name": architecture, "tag": tag, "quick_gelu": tag == "openai"}


def test_images_get_gradients(library: _Library) -> None:
    model, images = load("open_clip:RN50/yfcc15m"), _images().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model.image_encoder(images).sum(), images)
    assert (gradient != 0).any(dim=1).all()


@pytest.mark.parametrize("name", ["RN50/openai", "coca_ViT-B-32/laion2b_s13b_b90k"])
def test_a_hardened_one_is_saved_and_read_again(
    library: _Library, two_trees: Forest, tmp_path: Path, name: str
) -> None:
    model = load(f"open_clip:{name}")
    tree_model = build_tree_model(model, two_trees, images=_images(), template="{}")
    with torch.no_grad():
        for parameter in [*model.image_encoder.parameters(), *model.text_projection.parameters()]:
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        save_checkpoint(tmp_path, model, tree_model, template="{}", record={})
        read = load_checkpoint(tmp_path)
        for ours, expected in zip(read.tree_model(_images()), tree_model(_images()), strict=True):
            assert torch.equal(ours, expected)
    record = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert record["model_cfg"].get("quick_gelu", False) == ("openai" in name)
    assert library.asked[-1]["name"] == f"local-dir:{tmp_path}"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("RN50", "open_clip:RN50 names no weights: write open_clip:MODEL/TAG such as open_clip:RN50/openai"),
        ("RN50/", "open_clip:RN50/ names no weights"),
        ("RN51/openai", "open_clip cannot open 'RN51/openai' (Model config for 'RN51' not found in built-ins.): see"),
    ],
)
def test_names_that_the_library_does_not_know(library: _Library, name: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        load(f"open_clip:{name}")
    assert str(caught.value).startswith(sentence) and "\n" not in str(caught.value)


def test_a_text_projection_that_is_no_matrix_is_refused(library: _Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(*arguments: Any, **options: Any) -> nn.Module:
        model = _CLIP()
        model.text_projection = None
        return model

    monkeypatch.setattr(library, "create_model", create_model)
    with pytest.raises(ValueError, match="open_clip:RN50/openai has no plain text projection"):
        load("open_clip:RN50/openai")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ValueError, match=r"needs the open_clip library, which cannot be imported .*: pip install 'rob"):
        load("open_clip:RN50/openai")


def test_a_library_without_its_torchvision_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "open_clip.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ValueError, match=r"operator torchvision::nms does not exist\): pip install 'robustree\[open_cl"
    ):
        load("open_clip:RN50/openai")
    sys.modules.pop("open_clip", None)
