"""CLIP and SigLIP in the Hugging Face layout: config.json, model.safetensors and the tokenizer's files.

Weights are read from safetensors; an older `pytorch_model.bin` only through torch's weights-only reader, which executes
nothing, and an error says so otherwise. transformers is imported on first use because importing it takes seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from robustree.models.encoder import (
    CLIP_MEAN,
    CLIP_STD,
    ImageEncoder,
    Interpolation,
    Preprocessing,
    VisionLanguageModel,
)
from robustree.models.weights import read_pickle, refused

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KINDS = ("clip", "siglip")
_BATCH = 256  # prompts a forward: bounds memory with thousands of node names


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A transformers CLIPModel or SiglipModel with its tokenizer and how it wants its pixels."""

    model: Any
    tokenizer: Any
    preprocessing: Preprocessing


def adapt(model: Any, tokenizer: Any, *, preprocessing: Preprocessing, name: str) -> VisionLanguageModel:
    """Take a transformers CLIPModel or SiglipModel apart into a `VisionLanguageModel` that shares its weights.

    Raises:
        ValueError: `model` is another architecture.
    """
    kind = _supported(model.config, name)
    model.eval()
    if kind == "clip":
        projection, pixels = model.text_projection, model.visual_projection
        pooled: Callable[[Any], Tensor] = lambda output: output.pooler_output  # noqa: E731
    else:
        projection, pixels = model.text_model.head, nn.Identity()
        pooled = lambda output: output.last_hidden_state[:, -1]  # noqa: E731
    length = model.config.text_config.max_position_embeddings

    @torch.no_grad()
    def text_features(prompts: Sequence[str]) -> Tensor:
        device = next(model.parameters()).device
        features = []
        for start in range(0, len(prompts), _BATCH):
            batch = list(prompts[start : start + _BATCH])
            if kind == "clip":
                tokens = tokenizer(batch, return_tensors="pt", truncation=True, max_length=length, padding=True)
            else:
                tokens = {"input_ids": siglip_tokens(tokenizer, batch, length)}
            features.append(pooled(model.text_model(**{name: value.to(device) for name, value in tokens.items()})))
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


def siglip_tokens(tokenizer: Any, prompts: Sequence[str], length: int) -> Tensor:
    """Tokens (N, length) as SigLIP and SigLIP 2 were trained on: lower case, an end that is never cut off, filled up on
    the right, because the last place is pooled.

    The tokenizers of checkpoints (T5's for SigLIP, Gemma's for SigLIP 2) are set differently, so nothing is left to
    their settings.
    """
    lower = [prompt.lower() for prompt in prompts]
    words = tokenizer(lower, add_special_tokens=False, truncation=True, max_length=length - 1)["input_ids"]
    end, filler = tokenizer.eos_token_id, tokenizer.pad_token_id
    return torch.tensor([[*ids, end, *[filler] * (length - 1 - len(ids))] for ids in words])


def _supported(config: Any, name: str) -> str:
    """The architecture, "clip" or "siglip"; SigLIP 2 of one resolution calls itself "siglip" too."""
    kind = config.model_type
    if kind not in KINDS:
        raise ValueError(
            f"{name!r} holds a {kind!r} model; clip and siglip are supported: convert it or choose another."
        )
    return kind


def read_huggingface(path: str, name: str) -> Parts:
    """The model in a directory or at a hub id; `name` is what errors call it.

    Raises:
        ValueError: nothing is found there, the architecture is neither CLIP nor SigLIP, a weight or the tokenizer is
            missing, or the only weights are a pickle that the weights-only reader refuses.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    where = Path(path)
    if not any((where / file).is_file() for file in ("model.safetensors", "model.safetensors.index.json")):
        for weights in sorted(where.glob("pytorch_model*.bin")):
            if not isinstance(read_pickle(weights, device="meta"), dict):  # before anything else touches it
                raise refused(weights)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error
    _supported(config, name)
    try:
        model, loading = AutoModel.from_pretrained(
            path, config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise _unreadable(name, error) from error
    # transformers fills weights that it does not find with random numbers.
    absent = sorted([*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])])
    if absent:
        raise ValueError(
            f"{name!r} lacks {len(absent)} weights of its architecture or has them in another shape, "
            f"{absent[0]!r} among them: give the whole model."
        )
    tokenizer = read_tokenizer(path, name, vocabulary=model.config.text_config.vocab_size)
    return Parts(model=model, tokenizer=tokenizer, preprocessing=_preprocessing(path, model))


def read_tokenizer(path: str, name: str, *, vocabulary: int) -> Any:
    """The tokenizer in a directory or at a hub id, for a model with so many token embeddings.

    Raises:
        ValueError: it cannot be read, reads all words alike, cannot fill up, or has a larger vocabulary.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except ImportError as error:
        raise ValueError(
            f"the tokenizer of {name!r} needs a package that is not installed ({_reason(error)}): "
            "pip install 'robustree[siglip]'."
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(name, error) from error
    words = tokenizer(["dog", "cat"])["input_ids"]
    # Without its files a CLIP tokenizer still loads, and reads every character as unknown.
    if len({tuple(tokens) for tokens in words}) == 1:
        raise ValueError(
            f"the tokenizer of {name!r} cannot tell 'dog' from 'cat': "
            "add the model's tokenizer.json or vocab.json and merges.txt."
        )
    special = (tokenizer.eos_token_id, tokenizer.pad_token_id)
    if None in special or max(*special, *map(max, words)) >= vocabulary:
        raise ValueError(
            f"the tokenizer of {name!r} has {len(tokenizer)} tokens, {tokenizer.eos_token!r} for the end and "
            f"{tokenizer.pad_token!r} to fill up; the model has {vocabulary} token embeddings: "
            "add the tokenizer that belongs to it."
        )
    return tokenizer


def _unreadable(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"no model could be read at {name!r} ({_reason(error)}): "
        "give 'nano', a directory with config.json and model.safetensors, or a hub id."
    )


def _reason(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _preprocessing(path: str, model: PreTrainedModel) -> Preprocessing:
    side = model.config.vision_config.image_size
    record = _json_of(path, "preprocessor_config.json") or _json_of(path, "processor_config.json").get(
        "image_processor", {}
    )
    clip = model.config.model_type == "clip"
    interpolations: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}
    resample = record.get("resample", 3)
    if resample not in interpolations:
        raise ValueError(
            f"the preprocessing of {path!r} has resample {resample}; 2 (bilinear) and 3 (bicubic) are supported: "
            "change preprocessor_config.json or choose another model."
        )
    return Preprocessing(
        resolution=side,
        mean=tuple(record.get("image_mean", CLIP_MEAN if clip else (0.5, 0.5, 0.5))),
        std=tuple(record.get("image_std", CLIP_STD if clip else (0.5, 0.5, 0.5))),
        crop=bool(record.get("do_center_crop", clip)),
        interpolation=interpolations[resample],
    )


def _json_of(path: str, file: str) -> dict[str, Any]:
    """A JSON file of a local directory or of the hub (through transformers' cache); empty where there is none."""
    from transformers.utils import cached_file

    found = cached_file(path, file, _raise_exceptions_for_missing_entries=False)
    return json.loads(Path(found).read_text(encoding="utf-8")) if found else {}


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
