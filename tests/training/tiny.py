"""One tiny run: a model of two layers, five classes, 22 pictures."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustree import data
from robustree.attacks import PGD, Threat
from robustree.geometry import Poincare, Space, Sphere
from robustree.methods import FARE, PMGAFT, Hierarchical, TeCoA
from robustree.taxonomy import Forest, TreeSource, build_forest
from robustree.training import Recipe
from robustree.tree_model import Head, TreeModel

LEAVES = ("dog", "cat", "owl", "pear", "fig")
FOREST: Forest = build_forest(
    LEAVES, [TreeSource("kind", {"animal": {"mammal": ["dog", "cat"], "bird": ["owl"]}, "food": ["pear", "fig"]})]
)
SIDE = 4
RECIPE = Recipe(
    method=Hierarchical(),
    space=Poincare(),
    threat=Threat(eps=8 / 255),
    attack=PGD(steps=2, step_size=0.5, best=False),
    steps=10,
    batch_size=4,
    micro_batches=2,
    lr=1e-2,
)
METHODS = {
    "tecoa": (TeCoA(), Sphere()),
    "fare": (FARE(), Sphere()),
    "pmg_aft": (PMGAFT(), Sphere()),
    "hierarchical": (Hierarchical(), Poincare()),
    "per_level": (Hierarchical(perturbation="per_level"), Poincare()),
}
FLAT = replace(RECIPE, method=TeCoA(), space=Sphere(), micro_batches=1)


class Encoder(nn.Module):
    """Two layers: images (B, 3, 4, 4) -> embeddings (B, 8)."""

    def __init__(self, seed: int):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.first, self.second = nn.Linear(3 * SIDE * SIDE, 16), nn.Linear(16, 8)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw) / 4

    def forward(self, images: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(images.flatten(1) - 0.5)))


def tree_model(space: Space | None = None, *, seed: int = 0, forest: Forest = FOREST) -> TreeModel:
    """The model before training: the same weights every time."""
    draw = torch.Generator().manual_seed(seed + 100)
    projection = nn.Linear(12, 8, bias=False)
    projection.weight.data = torch.randn(8, 12, generator=draw)
    features = torch.randn(len(forest.names), 12, generator=draw)
    head = Head(space=space or Poincare(), scale=5.0)
    return TreeModel(Encoder(seed), projection, features, forest, head, image_norm=1.5)


@dataclass
class Pictures:
    """Noisy pictures, one colour a class; `seen` records the images asked for, `noise` the generators' seeds."""

    count: int = 22
    strength: float = 0.1
    seen: list[list[int]] = field(default_factory=list)
    noise: list[int] = field(default_factory=list)
    spoil_at: int | None = None

    @property
    def leaves(self) -> Tensor:
        return torch.arange(self.count) % len(LEAVES)

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor:
        self.seen.append(index.tolist())
        self.noise.append(generator.initial_seed())
        colours = torch.rand(len(LEAVES), 3, 1, 1, generator=torch.Generator().manual_seed(5))
        grain = torch.rand(self.count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(6))
        images = 0.6 * colours[self.leaves[index]] + 0.2 * grain[index]
        images = images + self.strength * torch.rand(images.shape, generator=generator)
        return images * torch.nan if len(self.seen) == self.spoil_at else images


class Streamed:
    """22 noisy pictures in three tars, read through a window; `seen` records the images asked for."""

    def __init__(self, root: Path, labels: Sequence[int]):
        if not root.exists():
            _write_tars(root, labels)
        self._data = data.Streamed(data.open_shards(root, LEAVES, window=8), SIDE)
        self.leaves, self.counts = self._data.leaves, self._data.counts
        self.fingerprint = self._data.fingerprint
        self.seen: list[list[int]] = []

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor:
        self.seen.append(index.tolist())
        return self._data.images(index, generator)


def streamed_pictures(root: Path, labels: Sequence[int] = range(22)) -> Streamed:
    return Streamed(root, labels)


def _write_tars(root: Path, labels: Sequence[int]) -> None:
    root.mkdir()
    grain = torch.rand(len(labels), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(6))
    for shard, numbers in enumerate((range(9), range(9, 11), range(11, len(labels)))):
        with tarfile.open(root / f"{shard}.tar", "w") as archive:
            for number in numbers:
                for suffix, content in (
                    ("png", data.png_bytes(grain[number])),
                    ("cls", str(labels[number] % len(LEAVES)).encode()),
                ):
                    member = tarfile.TarInfo(f"{number}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


@dataclass(frozen=True, kw_only=True)
class Cornered(TeCoA):
    """A finite loss whose gradient is not: the root at 0."""

    def loss(self, context: Any, adversarial: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = super().loss(context, adversarial)
        return loss + (0 * adversarial[0].scores.nodes).sum().sqrt(), terms


class Layered(nn.Module):
    """The encoder as a list of layers, as transformers have them."""

    def __init__(self, seed: int):
        super().__init__()
        plain = Encoder(seed)
        self.layers = nn.ModuleList([plain.first, plain.second])

    def forward(self, images: Tensor) -> Tensor:
        first, second = self.layers
        return second(torch.tanh(first(images.flatten(1) - 0.5)))


def layered(space: Space) -> TreeModel:
    model = tree_model(space)
    model.image_encoder = Layered(0)
    return model
