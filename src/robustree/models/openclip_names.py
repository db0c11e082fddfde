"""The tensors of OpenAI's and open_clip's ViT CLIPs, name by name, and what they are called in transformers.

    layout         image tower    text tower
    OpenAI, CLIP   visual.        at the top level
    CustomTextCLIP visual.        text.
    vision only    at the top     -

Queries, keys and values are one tensor there and three here; projections are transposed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robustree.models.openclip_geometry import Geometry, Tower


@dataclass(frozen=True)
class Entry:
    """One tensor: its name and shape there, and its name or names here (three for queries, keys and values)."""

    there: str
    shape: tuple[int, ...]
    here: tuple[str, ...]
    transposed: bool = False


def entries(geometry: Geometry, *, text: str = "", linear: bool = False) -> Iterator[Entry]:
    """Every tensor of a CLIP of this geometry; `text` is the prefix of the text tower ("" or "text.").

    `linear`: the text projection is a Linear's weight instead of a bare matrix.
    """
    vision, words, shared = geometry.vision, geometry.text, geometry.embed_dim
    here = "vision_model.embeddings"
    patch = (vision.width, 3, geometry.patch_size, geometry.patch_size)
    yield Entry("visual.conv1.weight", patch, (f"{here}.patch_embedding.weight",))
    yield Entry("visual.class_embedding", (vision.width,), (f"{here}.class_embedding",))
    places = (geometry.grid**2 + 1, vision.width)
    yield Entry("visual.positional_embedding", places, (f"{here}.position_embedding.weight",))
    yield from _norm("visual.ln_pre", "vision_model.pre_layrnorm", vision.width)
    yield from _blocks("visual.transformer", "vision_model", vision)
    yield from _norm("visual.ln_post", "vision_model.post_layernorm", vision.width)
    yield Entry("visual.proj", (vision.width, shared), ("visual_projection.weight",), transposed=True)
    here = "text_model.embeddings"
    table = (geometry.vocab_size, words.width)
    yield Entry(f"{text}token_embedding.weight", table, (f"{here}.token_embedding.weight",))
    places = (geometry.context_length, words.width)
    yield Entry(f"{text}positional_embedding", places, (f"{here}.position_embedding.weight",))
    yield from _blocks(f"{text}transformer", "text_model", words)
    yield from _norm(f"{text}ln_final", "text_model.final_layer_norm", words.width)
    if linear:
        yield Entry(f"{text}text_projection.weight", (shared, words.width), ("text_projection.weight",))
    else:
        yield Entry(f"{text}text_projection", (words.width, shared), ("text_projection.weight",), transposed=True)
    yield Entry("logit_scale", (), ("logit_scale",))


def _norm(there: str, here: str, width: int) -> Iterator[Entry]:
    for part in ("weight", "bias"):
        yield Entry(f"{there}.{part}", (width,), (f"{here}.{part}",))


def _blocks(there: str, here: str, tower: Tower) -> Iterator[Entry]:
    width, hidden = tower.width, tower.hidden
    for number in range(tower.layers):
        outside, inside = f"{there}.resblocks.{number}", f"{here}.encoder.layers.{number}"
        yield from _norm(f"{outside}.ln_1", f"{inside}.layer_norm1", width)
        yield from _norm(f"{outside}.ln_2", f"{inside}.layer_norm2", width)
        for part, shape in (("weight", (3 * width, width)), ("bias", (3 * width,))):
            three = tuple(f"{inside}.self_attn.{letter}_proj.{part}" for letter in "qkv")
            yield Entry(f"{outside}.attn.in_proj_{part}", shape, three)
        for name, ours, shape in (
            ("attn.out_proj", "self_attn.out_proj", (width, width)),
            ("mlp.c_fc", "mlp.fc1", (hidden, width)),
            ("mlp.c_proj", "mlp.fc2", (width, hidden)),
        ):
            yield Entry(f"{outside}.{name}.weight", shape, (f"{inside}.{ours}.weight",))
            yield Entry(f"{outside}.{name}.bias", shape[:1], (f"{inside}.{ours}.bias",))


def renamed_here(tensors: Mapping[str, Tensor], wanted: Iterator[Entry]) -> dict[str, Tensor]:
    """Tensors under their names in transformers, in single precision.

    Raises:
        ValueError: a tensor is missing, has another shape, or is none of a CLIP's.
    """
    left, found = dict(tensors), {}
    for entry in wanted:
        tensor = left.pop(entry.there, None)
        if tensor is None:
            raise ValueError(f"the tensor {entry.there!r} is missing: give the whole model.")
        if tensor.shape != entry.shape and not (entry.shape == () and tensor.numel() == 1):
            raise ValueError(
                f"the tensor {entry.there!r} has shape {tuple(tensor.shape)} where the others ask for {entry.shape}: "
                "give weights of one model."
            )
        value = tensor.reshape(entry.shape).float()
        parts = value.chunk(len(entry.here)) if len(entry.here) > 1 else (value.T if entry.transposed else value,)
        found |= {name: part.contiguous() for name, part in zip(entry.here, parts, strict=True)}
    if left:
        raise ValueError(f"the tensor {sorted(left)[0]!r} belongs to no ViT CLIP: give weights of that architecture.")
    return found


def renamed_there(tensors: Mapping[str, Tensor], wanted: Iterator[Entry]) -> dict[str, Tensor]:
    """The inverse of `renamed_here`; every value is copied, so that none shares memory with a model."""
    found = {}
    for entry in wanted:
        parts = [tensors[name] for name in entry.here]
        value = torch.cat(parts) if len(parts) > 1 else parts[0].T if entry.transposed else parts[0]
        found[entry.there] = value.detach().clone(memory_format=torch.contiguous_format)
    return found
