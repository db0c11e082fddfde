"""The sizes of a ViT CLIP, read off its tensors and held against what its config says.

The number of heads is in no tensor: 64 dimensions a head, as in every plain ViT of OpenAI and open_clip up to the width
of ViT-L; wider ones need the config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

CONFIG = "open_clip_config.json"
_HEAD, _WIDEST = 64, 1024
_OTHER_TOWERS = {"visual.layer1.": "a ResNet", "visual.trunk.": "a timm tower", "text_decoder.": "a CoCa"}


class NotPlainError(ValueError):
    """The architecture is not a plain ViT CLIP, but one that the open_clip library may know."""


@dataclass(frozen=True, kw_only=True)
class Tower:
    """A transformer: `layers` blocks of `width`, with `heads` attention heads and `hidden` units between."""

    width: int
    layers: int
    heads: int
    hidden: int


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The sizes of a ViT CLIP; `image_size` and `patch_size` in pixels a side."""

    vision: Tower
    text: Tower
    embed_dim: int
    patch_size: int
    image_size: int
    context_length: int
    vocab_size: int

    @property
    def grid(self) -> int:
        """Patches a side."""
        return self.image_size // self.patch_size


def read_geometry(tensors: Mapping[str, Tensor], *, text: str, said: Geometry | None) -> Geometry:
    """The sizes that the tensors have; `text` is the prefix of the text tower, `said` what the config says.

    Raises:
        NotPlainError: a ResNet, a timm tower or a CoCa.
        ValueError: a tensor that tells a size is missing, the heads are not known, or the config says something else.
    """
    for prefix, what in _OTHER_TOWERS.items():
        if name := next((name for name in tensors if name.startswith(prefix)), None):
            raise NotPlainError(
                f"the tensor {name!r} is of {what}: name the model as the open_clip library does, "
                "such as open_clip:RN50/openai."
            )
    if name := next((name for name in tensors if name.startswith("vision_model.")), None):
        raise ValueError(f"{name!r} is a name of transformers' layout: give the directory that has its config.json.")
    width, _, patch, _ = _shape(tensors, "visual.conv1.weight", 4)
    places, _ = _shape(tensors, "visual.positional_embedding", 2)
    vocabulary, words = _shape(tensors, f"{text}token_embedding.weight", 2)
    side = round((places - 1) ** 0.5)
    found = Geometry(
        vision=_tower(tensors, "visual.transformer", width, said.vision.heads if said else None),
        text=_tower(tensors, f"{text}transformer", words, said.text.heads if said else None),
        embed_dim=_shape(tensors, "visual.proj", 2)[1],
        patch_size=patch,
        # An image may be larger than its patches cover: 384 pixels in patches of 14.
        image_size=said.image_size if said and said.grid == side and said.patch_size == patch else patch * side,
        context_length=_shape(tensors, f"{text}positional_embedding", 2)[0],
        vocab_size=vocabulary,
    )
    if said and found != said:
        raise ValueError(_difference(found, said, text))
    return found


def _shape(tensors: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    if name not in tensors:
        raise ValueError(f"the tensor {name!r} is missing: give the weights of a ViT CLIP.")
    shape = tuple(tensors[name].shape)
    if len(shape) != axes:
        raise ValueError(f"the tensor {name!r} has shape {shape}; in a ViT CLIP it has {axes} axes: check the file.")
    return shape


def _tower(tensors: Mapping[str, Tensor], name: str, width: int, heads: int | None) -> Tower:
    blocks = f"{name}.resblocks."
    layers = {key.removeprefix(blocks).partition(".")[0] for key in tensors if key.startswith(blocks)}
    if heads is None and (width % _HEAD or width > _WIDEST):
        raise ValueError(
            f"the tensors of {name!r} are {width} wide, and how many heads they have is in no tensor "
            f"(by convention {_HEAD} dimensions a head, up to a width of {_WIDEST}): put its {CONFIG} beside it."
        )
    hidden = _shape(tensors, f"{blocks}0.mlp.c_fc.weight", 2)[0]
    return Tower(width=width, layers=len(layers), heads=heads or width // _HEAD, hidden=hidden)


def _difference(found: Geometry, said: Geometry, text: str) -> str:
    def sizes(geometry: Geometry) -> dict[str, int]:
        towers = {"visual.transformer": geometry.vision, f"{text}transformer": geometry.text}
        widths = {f"{name}.resblocks.0.ln_1.weight": tower.width for name, tower in towers.items()}
        layers = {f"{name}.resblocks": tower.layers for name, tower in towers.items()}
        hidden = {f"{name}.resblocks.0.mlp.c_fc.weight": tower.hidden for name, tower in towers.items()}
        return {
            "visual.conv1.weight": geometry.patch_size,
            "visual.positional_embedding": geometry.image_size,
            "visual.proj": geometry.embed_dim,
            f"{text}token_embedding.weight": geometry.vocab_size,
            f"{text}positional_embedding": geometry.context_length,
            **widths,
            **layers,
            **hidden,
        }

    have, want = sizes(found), sizes(said)
    name = next(name for name in have if have[name] != want[name])
    return (
        f"the tensor {name!r} gives the size {have[name]}, and {CONFIG} says {want[name]}: "
        "give the config that belongs to the weights."
    )
