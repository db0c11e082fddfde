"""What only the open_clip library has (ResNets, CoCa, timm towers), through the optional extra [open_clip].

Names are the library's own after the prefix: open_clip:RN50/openai, open_clip:coca_ViT-B-32/laion2b_s13b_b90k,
open_clip:hf-hub:owner/name, open_clip:local-dir:PATH."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from robustree.models.encoder import ImageEncoder, Pooled, VisionLanguageModel
from robustree.models.openclip_config import preprocessing_record, read_preprocessing
from robustree.models.openclip_format import WEIGHTS
from robustree.models.openclip_geometry import CONFIG

PREFIX = "open_clip:"
_SCHEMAS = ("hf-hub:", "local-dir:")
_BATCH = 256


def is_installed() -> bool:
    """Whether the extra [open_clip] is there."""
    return find_spec("open_clip") is not None


def load_from_library(name: str) -> VisionLanguageModel:
    """A model by the library's own name: MODEL/TAG, hf-hub:owner/name or local-dir:PATH.

    Raises:
        ValueError: the library is not installed or does not import, knows no such weights, or gave a model that cannot
            be taken apart.
    """
    model, config = _open(name)
    model.eval().float()
    owner = model.text if hasattr(model, "text") else model
    projection = _linear(owner.text_projection, name)
    owner.text_projection = None  # texts are then encoded up to the projection
    tokenizer = _tokenizer(name)
    preprocessing = read_preprocessing(model.visual.preprocess_cfg, side=_side(model.visual.image_size))

    @torch.no_grad()
    def text_features(prompts: Sequence[str]) -> Tensor:
        device = next(model.parameters()).device
        parts = [tokenizer(list(prompts[start : start + _BATCH])) for start in range(0, len(prompts), _BATCH)]
        return torch.cat([model.encode_text(tokens.to(device), normalize=False) for tokens in parts])

    def save(directory: Path) -> None:
        key = "text.text_projection" if owner is not model else "text_projection"
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        tensors[key] = projection.weight.detach().cpu().T.contiguous()
        save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
        record = {"model_cfg": config, "preprocess_cfg": preprocessing_record(preprocessing)}
        (directory / CONFIG).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    return VisionLanguageModel(
        name=f"{PREFIX}{name}",
        image_encoder=ImageEncoder(_Tower(model), nn.Identity(), preprocessing),
        text_features=text_features,
        text_projection=projection,
        logit_scale=float(model.logit_scale.detach().exp()),
        save=save,
    )


class _Tower(nn.Module):
    """An image tower of open_clip behind the call of transformers' towers."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.visual = model.visual
        self._encode: Callable[..., Tensor] = model.encode_image  # type: ignore[assignment]

    def forward(self, pixel_values: Tensor) -> Pooled:
        return Pooled(self._encode(pixel_values, normalize=False))


def _open(name: str) -> tuple[Any, dict[str, Any]]:
    """The library's model, and the config that makes it again."""
    library = _library()
    architecture, tag = (name, None) if name.startswith(_SCHEMAS) else _split(name)
    # The library only warns where weights and architecture disagree about QuickGELU.
    quick = bool(tag and library.get_pretrained_cfg(architecture, tag).get("quick_gelu"))
    try:
        model = library.create_model(architecture, tag, force_quick_gelu=quick, require_pretrained=True)
        config = library.get_model_config(architecture)
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"open_clip cannot open {name!r} ({reason}): see open_clip.list_pretrained().") from error
    return model, {**config, "quick_gelu": quick or config.get("quick_gelu", False)}


def _split(name: str) -> tuple[str, str]:
    architecture, slash, tag = name.partition("/")
    if not slash or not tag:
        raise ValueError(
            f"{PREFIX}{name} names no weights: write {PREFIX}MODEL/TAG such as {PREFIX}RN50/openai, "
            f"{PREFIX}hf-hub:owner/name or {PREFIX}local-dir:PATH."
        )
    return architecture, tag


def _library() -> Any:
    try:
        import open_clip  # type: ignore[import-not-found]
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"this model needs the open_clip library, which cannot be imported ({reason}): "
            "pip install 'robustree[open_clip]', with a torchvision that belongs to your torch."
        ) from error
    return open_clip


def _tokenizer(name: str) -> Callable[[list[str]], Tensor]:
    architecture = name if name.startswith(_SCHEMAS) else _split(name)[0]
    return _library().get_tokenizer(architecture)


def _linear(projection: Any, name: str) -> nn.Linear:
    """The text projection as a Linear: open_clip keeps a matrix (H, D) or a Linear.

    Raises:
        ValueError: it is anything else.
    """
    if isinstance(projection, nn.Linear) and projection.bias is None:
        return projection
    if not isinstance(projection, Tensor):
        raise ValueError(
            f"{PREFIX}{name} has no plain text projection, which hierarchical hardening trains: choose another model."
        )
    linear = nn.Linear(*projection.shape, bias=False)
    with torch.no_grad():
        linear.weight.copy_(projection.T)
    return linear


def _side(size: Any) -> int:
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    if height != width:
        raise ValueError(f"the image size is {height} x {width}; towers see squares here: choose another model.")
    return int(height)
