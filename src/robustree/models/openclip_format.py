"""ViT CLIPs as OpenAI and open_clip write them, in and out, without open_clip.

Which activation a model has, QuickGELU or GELU, is in no tensor. The config beside the weights, a base model or the
caller says it, or entries that only OpenAI's archives have; it is never guessed, and two that disagree are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from robustree.models.clip_tokenizer import VOCABULARY, clip_tokenizer
from robustree.models.encoder import CLIP_MEAN, CLIP_STD, Preprocessing
from robustree.models.huggingface import Parts, read_tokenizer
from robustree.models.openclip_config import Activation, Config, config_record, read_config
from robustree.models.openclip_geometry import CONFIG, Geometry, Tower, read_geometry
from robustree.models.openclip_names import entries, renamed_here, renamed_there
from robustree.models.weights import read_weights

WEIGHTS = "open_clip_model.safetensors"
FILES = (WEIGHTS, "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
"""Where open_clip keeps weights in a directory; the first that is there counts."""
_OPENAI = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's archives carry beside the weights; OpenAI's only activation is QuickGELU."""
_EPSILON = 1e-5  # of every LayerNorm of OpenAI and open_clip


def find_weights(directory: Path) -> Path:
    """The weights of a directory in open_clip's layout.

    Raises:
        ValueError: there are none.
    """
    found = next((directory / name for name in FILES if (directory / name).is_file()), None)
    if found is None:
        raise ValueError(f"{str(directory)!r} has {CONFIG} but no {WEIGHTS} or {FILES[2]}: add the weights.")
    return found


def read_openclip(path: Path, *, activation: Activation | None = None, base: Parts | None = None) -> Parts:
    """The model in a weights file (.safetensors, .pt, .bin), with the config and the tokenizer that lie beside it.

    `base`: the CLIP that a vision tower alone was tuned from; it gives text tower, activation, tokenizer and
    preprocessing.

    Raises:
        ValueError: the file cannot be read safely; the activation is not known, or said twice differently; a tensor is
            missing, has another shape than the others or the config ask for, or is none of a ViT CLIP's; a vision tower
            came without a base, or a whole model with one.
    """
    tensors = read_weights(path)
    config = read_config(path.parent / CONFIG) if (path.parent / CONFIG).is_file() else None
    said: dict[str, Activation] = {"the option": activation} if activation else {}
    said |= {CONFIG: config.activation} if config else {}
    try:
        vision = _vision_tower(tensors)
        if vision is None:
            if base is not None:
                raise ValueError("it holds a whole model, not a vision tower alone: leave the base out.")
            model = read_model(tensors, config=config, said=said)
            side = model.config.vision_config.image_size
            return Parts(
                model=model,
                tokenizer=_tokenizer(path.parent, model, config),
                preprocessing=config.preprocessing if config else _openai_preprocessing(side),
            )
        if base is None:
            raise ValueError("it holds a vision tower alone: `robustree convert ... --base` joins it with its CLIP.")
        whole, base_config = openclip_tensors(base)
        text = {name: tensor for name, tensor in whole.items() if not name.startswith("visual.")}
        said["the base"] = base_config.activation
        model = read_model({**text, **vision}, config=base_config, said=said)
        return Parts(model=model, tokenizer=base.tokenizer, preprocessing=base.preprocessing)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be used: {error}") from error


def read_model(tensors: Mapping[str, Tensor], *, config: Config | None, said: Mapping[str, Activation]) -> Any:
    """A transformers model with these weights, in single precision; `said`: who says which activation it has.

    Raises:
        ValueError: as `read_openclip`.
    """
    tensors = dict(tensors)
    openai = [name for name in _OPENAI if tensors.pop(name, None) is not None]
    text = "text." if "text.token_embedding.weight" in tensors else ""
    tensors.pop(f"{text}attn_mask", None)
    geometry = read_geometry(tensors, text=text, said=config.geometry if config else None)
    by_layout: dict[str, Activation] = {f"the entry {name!r}, of OpenAI's archives,": "quick_gelu" for name in openai}
    activation = _agreed({**said, **by_layout})
    linear = f"{text}text_projection.weight" in tensors
    weights = renamed_here(tensors, entries(geometry, text=text, linear=linear))
    model = _empty_model(geometry, activation, config.end_token if config else None)
    model.load_state_dict(weights, strict=True)
    return model


def write_openclip(directory: Path, parts: Parts) -> None:
    """Write weights, config and tokenizer as `open_clip.create_model_from_pretrained("local-dir:...")` reads them.

    Raises:
        ValueError: the model is no CLIP, or computes something that open_clip cannot say.
    """
    tensors, config = openclip_tensors(parts)
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    (directory / CONFIG).write_text(json.dumps(config_record(config), indent=2) + "\n", encoding="utf-8")
    parts.tokenizer.save_pretrained(directory)


def openclip_tensors(parts: Parts) -> tuple[dict[str, Tensor], Config]:
    """The weights of a transformers CLIPModel under open_clip's names, and what its config says.

    Raises:
        ValueError: the model is no CLIP, or computes something that open_clip cannot say.
    """
    kind = parts.model.config.model_type
    if kind != "clip":
        raise ValueError(f"this is a {kind!r} model, and open_clip's layout here holds CLIP: give a CLIP.")
    vision, text = parts.model.config.vision_config, parts.model.config.text_config
    activations, epsilons = {vision.hidden_act, text.hidden_act}, {vision.layer_norm_eps, text.layer_norm_eps}
    if activations not in ({"gelu"}, {"quick_gelu"}) or epsilons != {_EPSILON}:
        raise ValueError(
            f"the towers have the activations {', '.join(sorted(activations))} and {sorted(epsilons)} in LayerNorm; "
            f"open_clip has gelu or quick_gelu in both, and {_EPSILON}: choose another model."
        )
    geometry = Geometry(
        vision=_sizes(vision),
        text=_sizes(text),
        embed_dim=parts.model.config.projection_dim,
        patch_size=vision.patch_size,
        image_size=vision.image_size,
        context_length=text.max_position_embeddings,
        vocab_size=text.vocab_size,
    )
    # Where the config says 2, as CLIP's first configs do, transformers pools the highest token, as open_clip does.
    highest = text.eos_token_id in (2, text.vocab_size - 1)
    config = Config(
        geometry=geometry,
        activation=activations.pop(),
        end_token=None if highest else int(text.eos_token_id),
        own_tokenizer=not highest or geometry.vocab_size != VOCABULARY,
        preprocessing=parts.preprocessing,
    )
    return renamed_there(parts.model.state_dict(), entries(geometry)), config


def _sizes(tower: Any) -> Tower:
    return Tower(
        width=tower.hidden_size,
        layers=tower.num_hidden_layers,
        heads=tower.num_attention_heads,
        hidden=tower.intermediate_size,
    )


def _vision_tower(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors under the prefix "visual." if they are a vision tower alone, with or without it; otherwise None."""
    if all(name.startswith("visual.") for name in tensors):
        return dict(tensors)
    if "conv1.weight" in tensors and "class_embedding" in tensors:
        return {f"visual.{name}": tensor for name, tensor in tensors.items()}
    return None


def _agreed(said: Mapping[str, Activation]) -> Activation:
    """The activation that everyone says.

    Raises:
        ValueError: nobody does, or two disagree.
    """
    if not said:
        raise ValueError(
            "no tensor says whether it has QuickGELU (OpenAI's weights and what was tuned from them) or GELU (most "
            f"others): put its {CONFIG} beside it, or convert it with `robustree convert ... --activation`."
        )
    (first, activation), *others = said.items()
    for other, another in others:
        if another != activation:
            raise ValueError(f"{first} says the activation is {activation}, {other} says {another}: find out which.")
    return activation


def _empty_model(geometry: Geometry, activation: Activation, end_token: int | None) -> Any:
    from transformers import CLIPConfig, CLIPModel

    def tower(sizes: Tower) -> dict[str, Any]:
        return {
            "hidden_size": sizes.width,
            "intermediate_size": sizes.hidden,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "hidden_act": activation,
            "layer_norm_eps": _EPSILON,
            "projection_dim": geometry.embed_dim,
        }

    end = geometry.vocab_size - 1 if end_token is None else end_token
    text = tower(geometry.text) | {
        "vocab_size": geometry.vocab_size,
        "max_position_embeddings": geometry.context_length,
        "bos_token_id": geometry.vocab_size - 2 if end_token is None else None,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    vision = tower(geometry.vision) | {"image_size": geometry.image_size, "patch_size": geometry.patch_size}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=geometry.embed_dim))


def _tokenizer(directory: Path, model: Any, config: Config | None) -> Any:
    """The tokenizer beside the weights, or CLIP's own where the vocabulary has its size."""
    size = model.config.text_config.vocab_size
    if any((directory / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return read_tokenizer(str(directory), str(directory), vocabulary=size)
    if size != VOCABULARY or (config and (config.own_tokenizer or config.end_token is not None)):
        raise ValueError(
            f"its tokenizer, of {size} tokens, is not CLIP's own of {VOCABULARY}: put its tokenizer.json beside it."
        )
    return clip_tokenizer()


def _openai_preprocessing(side: int) -> Preprocessing:
    return Preprocessing(resolution=side, mean=CLIP_MEAN, std=CLIP_STD)
