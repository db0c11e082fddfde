"""CLIP and SigLIP from the Hugging Face layout: a hub id, a local directory, or the built-in "nano".

Weights are read from safetensors; an older `pytorch_model.bin` only through torch's weights-only reader, which executes
nothing, and an error says so otherwise. transformers is imported on first use because importing it takes seconds.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustree.models.encoder import ImageEncoder, Preprocessing, VisionLanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_BATCH = 256  # prompts a forward: bounds memory with thousands of node names


def load(name: str) -> VisionLanguageModel:
    """The model at a hub id ("openai/clip-vit-base-patch32"), in a local directory, or built in ("nano").

    Raises:
        ValueError: nothing is found there, the architecture is neither CLIP nor SigLIP, or the only weights are a pickle that
            the weights-only reader refuses.
    """
    path = nano_directory() if name == "nano" else name
    model, tokenizer = _read(str(path), name)
    return adapt(model, tokenizer, preprocessing=_preprocessing(str(path), model), name=name)


def nano_directory() -> Path:
    """The directory of the built-in model, in the same layout as any other."""
    return Path(str(files("robustree.models").joinpath("nano")))


def adapt(model: PreTrainedModel, tokenizer: Any, *, preprocessing: Preprocessing, name: str) -> VisionLanguageModel:
    """Take a transformers CLIPModel or SiglipModel apart into a `VisionLanguageModel` that shares its weights.

    Raises:
        ValueError: `model` is another architecture.
    """
    kind = model.config.model_type
    if kind not in ("clip", "siglip", "siglip2"):
        raise ValueError(
            f"{name!r} holds a {kind!r} model; clip, siglip and siglip2 are supported: convert it or choose another."
        )
    model.eval()
    if kind == "clip":
        projection, pixels = model.text_projection, model.visual_projection
        pooled: Callable[[Any], Tensor] = lambda output: output.pooler_output  # noqa: E731
        padding: dict[str, Any] = {"padding": True}
    else:
        projection, pixels = model.text_model.head, nn.Identity()
        pooled = lambda output: output.last_hidden_state[:, -1]  # noqa: E731
        padding = {"padding": "max_length"}  # SigLIP pools the last position, as it was trained
    length = model.config.text_config.max_position_embeddings

    @torch.no_grad()
    def text_features(prompts: Sequence[str]) -> Tensor:
        device = next(model.parameters()).device
        features = []
        for start in range(0, len(prompts), _BATCH):
            batch = list(prompts[start : start + _BATCH])
            tokens = tokenizer(batch, return_tensors="pt", truncation=True, max_length=length, **padding).to(device)
            if kind != "clip":
                tokens = {"input_ids": tokens["input_ids"]}
            features.append(pooled(model.text_model(**tokens)))
        return torch.cat(features)

    def save(directory: Path) -> None:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        (directory / "preprocessor_config.json").write_text(
            json.dumps(_processor_record(preprocessing), indent=2) + "\n"
        )

    return VisionLanguageModel(
        name=name,
        image_encoder=ImageEncoder(model.vision_model, pixels, preprocessing),
        text_features=text_features,
        text_projection=projection,
        logit_scale=float(model.logit_scale.detach().exp()),
        save=save,
    )


def _read(path: str, name: str) -> tuple[PreTrainedModel, Any]:
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    where = Path(path)
    if where.exists() and not (where / "config.json").is_file():
        raise ValueError(
            f"{name!r} has no config.json; a model directory holds config.json and model.safetensors: check the path."
        )
    if (where / "pytorch_model.bin").is_file() and not any(where.glob("*.safetensors")):
        _refuse_unsafe(where / "pytorch_model.bin")
    try:
        config = AutoConfig.from_pretrained(path)
        model = AutoModel.from_pretrained(path, config=config, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"no model could be read at {name!r} ({reason}): give 'nano', a directory with config.json and model.safetensors, or a hub id."
        ) from error
    return model, tokenizer


def _refuse_unsafe(weights: Path) -> None:
    """Read a pickle checkpoint with the reader that executes nothing, before anything else touches it."""
    try:
        torch.load(weights, map_location="meta", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{weights} is a pickle that the weights-only reader refuses, so it was not opened: convert it to model.safetensors."
        ) from error


def _preprocessing(path: str, model: PreTrainedModel) -> Preprocessing:
    from transformers import AutoConfig  # noqa: F401  (transformers is loaded by now; hub files come through its cache)
    from transformers.utils import cached_file

    side = model.config.vision_config.image_size
    found = cached_file(path, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    record = json.loads(Path(found).read_text(encoding="utf-8")) if found else {}
    clip = model.config.model_type == "clip"
    return Preprocessing(
        resolution=side,
        mean=tuple(record.get("image_mean", CLIP_MEAN if clip else (0.5, 0.5, 0.5))),
        std=tuple(record.get("image_std", CLIP_STD if clip else (0.5, 0.5, 0.5))),
        crop=bool(record.get("do_center_crop", clip)),
        interpolation="bilinear" if record.get("resample", 3) == 2 else "bicubic",
    )


def _processor_record(preprocessing: Preprocessing) -> dict[str, Any]:
    side = preprocessing.resolution
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side} if preprocessing.crop else {"height": side, "width": side},
        "do_center_crop": preprocessing.crop,
        "crop_size": {"height": side, "width": side},
        "resample": 2 if preprocessing.interpolation == "bilinear" else 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
        "do_convert_rgb": True,
    }
