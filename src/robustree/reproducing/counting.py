"""What one image takes: passes through the encoder, counted in a real training step, and FLOPs and bytes a pass,
counted in a real encoder. Nothing of it depends on the machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from robustree.auditing.plan import Passes
from robustree.models.loading import nano_directory
from robustree.reproducing.tables import Backbone
from robustree.taxonomy import Forest
from robustree.training import Recipe, training_step
from robustree.training.loop import select_trained
from robustree.tree_model import Head, TreeModel

_SIDE, _WIDTH = 4, 8  # of the encoder that only counts
KNOWN: dict[Backbone, dict] = {
    "ViT-B/32": {},  # transformers' defaults
    "ViT-L/14": {
        "vision_config": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "patch_size": 14,
        },
        "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        "projection_dim": 768,
    },
}
"""The architecture of OpenAI's CLIP as transformers' configuration, for models that are not at hand."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Of one image in an encoder: FLOPs (a multiply-add is two) of a forward pass and of each gradient, and the bytes
    that stay in memory for a gradient of the weights; `encoder`, `model`: parameters of the encoder, and of all."""

    forward: float
    image_gradient: float
    weight_gradient: float
    activations: float
    encoder: int
    model: int

    def flops(self, passes: Passes) -> float:
        """FLOPs of an image that passes so often."""
        return (
            passes.forwards * self.forward
            + passes.image_gradients * self.image_gradient
            + passes.weight_gradients * self.weight_gradient
        )


def clip_config(backbone: Backbone, where: str) -> dict | None:
    """The configuration of the CLIP at `where`, of the backbone's own where that is not here; None for other kinds."""
    directory = nano_directory() if where == "nano" else Path(where)
    if (directory / "config.json").is_file():
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        return config if config.get("model_type") == "clip" else None
    return None if directory.exists() else KNOWN.get(backbone)


def build_clip(config: dict, device: torch.device) -> nn.Module:
    """A CLIP of that configuration with random weights; on the meta device without any."""
    from transformers import CLIPConfig, CLIPModel

    with device:
        return CLIPModel(CLIPConfig.from_dict(config))


def footprint(config: dict) -> Footprint:
    """Count what one image takes in the image encoder of a CLIP of that configuration.

    Nothing is computed: shapes alone are followed, so it takes a second for any size."""
    meta = torch.device("meta")
    model = build_clip(config, meta)
    tower = model.vision_model
    side = int(model.config.vision_config.image_size)  # type: ignore[union-attr,arg-type]

    def passed(*, image: bool) -> tuple[float, float, float]:
        model.requires_grad_(not image)
        images = torch.empty(1, 3, side, side, device=meta).requires_grad_(image)
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with FlopCounterMode(display=False) as count, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            embedding = model.visual_projection(tower(pixel_values=images).pooler_output)  # type: ignore[operator]
            forward = count.get_total_flops()
            embedding.sum().backward()
        own = {p.untyped_storage()._cdata for p in model.parameters()}
        held = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
        return forward, count.get_total_flops() - forward, held

    forward, weights, activations = passed(image=False)
    encoder = [*tower.parameters(), *model.visual_projection.parameters()]  # type: ignore[union-attr]
    return Footprint(
        forward=forward,
        image_gradient=passed(image=True)[1],
        weight_gradient=weights,
        activations=activations,
        encoder=sum(p.numel() for p in encoder),
        model=sum(p.numel() for p in model.parameters()),
    )


def step_passes(recipe: Recipe, forest: Forest) -> Passes:
    """Passes of one image in a training step, counted in that step, which is run on two tiny images."""
    encoder, head = _Counting(), Head(space=recipe.space, scale=1.0, depths=recipe.depths)
    projection = nn.Linear(_WIDTH, _WIDTH, bias=False)
    features = torch.randn(len(forest.names), _WIDTH, generator=torch.Generator().manual_seed(0))
    model = TreeModel(encoder, projection, features, forest, head, image_norm=1.0)
    select_trained(model, text=recipe.method.trains_text)
    images, leaves = torch.full((2, 3, _SIDE, _SIDE), 0.5), torch.tensor([0, forest.leaf_count - 1])
    generator = torch.Generator().manual_seed(0)
    loss, _ = training_step(
        model, model, torch.no_grad()(model), recipe.method, recipe.attack, recipe.threat, images, leaves, generator
    )
    loss.backward()
    return Passes(*(count / len(images) for count in encoder.counts))


class _Counting(nn.Module):
    """An encoder that counts the images that go through it forwards and backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * _SIDE * _SIDE, _WIDTH)
        self.counts = [0, 0, 0]

    def forward(self, images: Tensor) -> Tensor:
        self.counts[0] += len(images)
        embeddings = self.layer(images.flatten(1))
        if embeddings.requires_grad:
            kind = 2 if self.layer.weight.requires_grad else 1

            def came_back(gradient: Tensor) -> None:
                self.counts[kind] += len(images)

            embeddings.register_hook(came_back)
        return embeddings
