"""`open_clip_config.json`: what an open_clip model directory says of its sizes, activation, text pooling and pixels.

    {"model_cfg": {"embed_dim": 512, "quick_gelu": true, "vision_cfg": {...}, "text_cfg": {...}},
     "preprocess_cfg": {"mean": [...], "std": [...], "interpolation": "bicubic", "resize_mode": "shortest"}}

Keys that are absent have open_clip's defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from robustree.models.encoder import CLIP_MEAN, CLIP_STD, Preprocessing
from robustree.models.openclip_geometry import CONFIG, Geometry, NotPlainError, Tower

Activation = Literal["gelu", "quick_gelu"]
_HARMLESS = {"patch_dropout", "output_tokens", "tokenizer_mode", "hf_tokenizer_name", "hf_model_pretrained", "pad_id"}
_VISION = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224}
_TEXT = {"layers": 12, "width": 512, "heads": 8, "mlp_ratio": 4.0, "context_length": 77, "vocab_size": 49408}
_TEXT |= {"pool_type": "argmax", "eos_id": 2}
_PLAIN = {"pool_type": "tok", "pos_embed_type": "learnable", "proj_type": "linear"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """`end_token`: the token whose place is pooled; None stands for the highest one of a text. `own_tokenizer`: texts
    are not read by CLIP's own tokenizer."""

    geometry: Geometry
    activation: Activation
    end_token: int | None
    own_tokenizer: bool
    preprocessing: Preprocessing


def read_config(path: Path) -> Config:
    """The contents of an `open_clip_config.json`.

    Raises:
        NotPlainError: a ResNet, a CoCa, a timm or Hugging Face tower, or a block with options of its own.
        ValueError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model = content["model_cfg"]
        vision, text = dict(model["vision_cfg"]), dict(model["text_cfg"])
        _refuse_other_architectures(path, model, vision, text)
        vision, text = _VISION | vision, _TEXT | text
        geometry = Geometry(
            vision=_tower(vision, vision["width"] // vision["head_width"]),
            text=_tower(text, text["heads"]),
            embed_dim=int(model["embed_dim"]),
            patch_size=int(vision["patch_size"]),
            image_size=_square(vision["image_size"]),
            context_length=int(text["context_length"]),
            vocab_size=int(text["vocab_size"]),
        )
        end = None if text["pool_type"] == "argmax" else int(text["eos_id"])
        if end == 2:  # transformers takes 2 for "the highest token"
            raise NotPlainError(f"{str(path)!r} pools the token 2, which transformers cannot: {_library(path.parent)}")
        return Config(
            geometry=geometry,
            activation="quick_gelu" if model.get("quick_gelu") else "gelu",
            end_token=end,
            own_tokenizer=bool(text.get("hf_tokenizer_name")),
            preprocessing=read_preprocessing(content.get("preprocess_cfg", {}), side=geometry.image_size),
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}): fetch it again.") from error


def config_record(config: Config) -> dict[str, Any]:
    """The same as JSON values that open_clip reads."""
    geometry = config.geometry
    vision: dict[str, Any] = {
        "image_size": geometry.image_size,
        "patch_size": geometry.patch_size,
        "layers": geometry.vision.layers,
        "width": geometry.vision.width,
        "head_width": geometry.vision.width // geometry.vision.heads,
        "mlp_ratio": _ratio(geometry.vision),
    }
    text: dict[str, Any] = {
        "context_length": geometry.context_length,
        "vocab_size": geometry.vocab_size,
        "layers": geometry.text.layers,
        "width": geometry.text.width,
        "heads": geometry.text.heads,
        "mlp_ratio": _ratio(geometry.text),
    }
    if config.end_token is not None:
        text |= {"pool_type": "eos", "eos_id": config.end_token}
    if config.own_tokenizer:
        text["hf_tokenizer_name"] = "."  # with "local-dir:" open_clip puts the directory in its place
    quick = {"quick_gelu": True} if config.activation == "quick_gelu" else {}
    return {
        "model_cfg": {"embed_dim": geometry.embed_dim, **quick, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": preprocessing_record(config.preprocessing),
    }


def _refuse_other_architectures(
    path: Path, model: Mapping[str, Any], vision: Mapping[str, Any], text: Mapping[str, Any]
) -> None:
    odd = [key for key in model if key not in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text")]
    odd += [f"vision_cfg.{key}" for key, value in vision.items() if _unusual(key, value, _VISION)]
    odd += [f"text_cfg.{key}" for key, value in text.items() if _unusual(key, value, _TEXT)]
    odd += ["vision_cfg.layers"] if isinstance(vision.get("layers"), list) else []
    odd += ["text_cfg.pool_type"] if text.get("pool_type", "argmax") not in ("argmax", "eos") else []
    if odd:
        raise NotPlainError(f"{str(path)!r} has {odd[0]!r}, so this is no plain ViT CLIP: {_library(path.parent)}")


def _library(directory: Path) -> str:
    return (
        "the open_clip library reads it; "
        f"pip install 'robustree[open_clip]' and name it open_clip:local-dir:{directory}."
    )


def _unusual(key: str, value: object, known: Mapping[str, Any]) -> bool:
    """Whether an option changes what is computed in a way that only the library knows."""
    return key not in known and key not in _HARMLESS and value not in (None, False, _PLAIN.get(key))


def _tower(options: Mapping[str, Any], heads: int) -> Tower:
    width = int(options["width"])
    hidden = int(width * options["mlp_ratio"])
    return Tower(width=width, layers=int(options["layers"]), heads=int(heads), hidden=hidden)


def _ratio(tower: Tower) -> float:
    """The mlp_ratio from which open_clip, which rounds down, finds the hidden width again."""
    ratio = tower.hidden / tower.width
    return ratio if int(tower.width * ratio) == tower.hidden else (tower.hidden + 0.5) / tower.width


def _square(size: Any) -> int:
    sides = set(size) if isinstance(size, list) else {size}
    if len(sides) != 1:
        raise ValueError(f"the image size is {size}; towers see squares here: choose a model with a square input.")
    return int(sides.pop())


def read_preprocessing(options: Mapping[str, Any], *, side: int) -> Preprocessing:
    """A `preprocess_cfg` for a tower that sees squares of `side` pixels.

    Raises:
        ValueError: an interpolation or a way of resizing that is not supported.
    """
    interpolation, resizing = options.get("interpolation") or "bicubic", options.get("resize_mode") or "shortest"
    if interpolation not in ("bicubic", "bilinear") or resizing not in ("shortest", "squash"):
        raise ValueError(
            f"the preprocessing is {interpolation} with resize mode {resizing}; bicubic and bilinear, shortest and "
            f"squash are supported: change {CONFIG} or choose another model."
        )
    return Preprocessing(
        resolution=side,
        mean=_channels(options.get("mean") or CLIP_MEAN),
        std=_channels(options.get("std") or CLIP_STD),
        crop=resizing == "shortest",
        interpolation=interpolation,
    )


def _channels(values: Any) -> tuple[float, float, float]:
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        raise ValueError(f"the mean or std of the pixels is {values}; it has one number a channel: mend {CONFIG}.")
    red, green, blue = values
    return float(red), float(green), float(blue)


def preprocessing_record(preprocessing: Preprocessing) -> dict[str, Any]:
    """The inverse of `read_preprocessing`, as JSON values."""
    return {
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "interpolation": preprocessing.interpolation,
        "resize_mode": "shortest" if preprocessing.crop else "squash",
    }
