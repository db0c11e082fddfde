"""A small accurate model that attacks break in part, its images, and the audit of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustree.attacks import PGD, Threat
from robustree.auditing.audit import Subject
from robustree.auditing.checks import Budget
from robustree.auditing.plan import LevelAttack, Plan
from robustree.data import AuditImages
from robustree.geometry import Poincare, Space, Sphere
from robustree.models.encoder import ImageEncoder, Preprocessing
from robustree.taxonomy import Forest, TreeSource, build_forest
from robustree.tree_model import Depths, Head, TreeModel

SIDE, WIDTH = 8, 48
TREE = {
    "animal": {"mammal": ["dog", "cat"], "bird": ["hen", "owl"]},
    "food": {"baked": ["bread", "rye"], "fruit": ["pear", "fig"]},
    "tool": {"sharp": ["axe", "saw"], "blunt": ["bat", "rod"]},
}
LEAVES = tuple(leaf for middle in TREE.values() for group in middle.values() for leaf in group)
FOREST = build_forest(LEAVES, [TreeSource("kind", TREE)])
PLAN = Plan(
    threat=Threat(eps=4 / 255), attacks=(LevelAttack(PGD(steps=12)),), all_levels=PGD(steps=5), batch_size=128, seed=3
)
BUDGET = Budget(images=36, steps=10, draws=10, queries=80)


@lru_cache(maxsize=8)
def draw_images(count: int, seed: int) -> AuditImages:
    """Images of 8 x 8 pixels: one faint pattern for each node on the way from the class to its top, and noise."""
    patterns = torch.randn(len(FOREST.names), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    leaves = torch.arange(count) % len(LEAVES)
    paths = torch.tensor([FOREST.path("kind", leaf) for leaf in leaves.tolist()])
    faint = patterns[paths].mul(torch.tensor([0.04, 0.04, 0.04])[None, :, None, None, None]).sum(1)
    # Fragile or firm, little between: images at the very edge make honest attacks disagree.
    strength = torch.where(torch.rand(count, 1, 1, 1, generator=draw) < 0.5, 0.5, 2.5)
    pixels = 0.5 + strength * faint + 0.04 * torch.randn(count, 3, SIDE, SIDE, generator=draw)
    names = tuple(f"drawn/{number}" for number in range(count))
    return AuditImages((pixels.clamp(0, 1) * 255).round() / 255, leaves, names)


class Tower(nn.Module):
    """A tanh layer between two linear ones."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.first, self.second = nn.Linear(3 * SIDE * SIDE, 96, bias=False), nn.Linear(96, WIDTH, bias=False)
        for layer in (self.first, self.second):
            layer.weight.data = torch.randn(layer.weight.shape, generator=draw) / layer.in_features**0.5

    def forward(self, pixel_values: Tensor) -> Output:
        return Output(self.second(torch.tanh(self.first(pixel_values.flatten(1)))))


@dataclass
class Output:
    pooler_output: Tensor


def make_model(space: Space, *, forest: Forest = FOREST, seed: int = 1) -> TreeModel:
    """A model whose texts are the mean embeddings of what they name, so that it is accurate at every level."""
    record = Preprocessing(resolution=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    encoder = ImageEncoder(Tower(seed), nn.Identity(), record)
    examples = draw_images(600, seed=1)
    with torch.no_grad():
        embeddings = encoder(examples.pixels)
        texts = torch.stack([_mean(embeddings, examples.leaves, forest, node) for node in range(len(forest.names))])
    projection = nn.Linear(WIDTH, WIDTH, bias=False)
    projection.weight.data = torch.eye(WIDTH)
    scale = 10.0 if isinstance(space, Sphere) else 4.0
    head = Head(space=space, scale=scale, depths=Depths(image=1.0, leaf=1.0, root=1.0, limit=2.0))
    norm = float(embeddings.norm(dim=1).mean())
    return TreeModel(encoder, projection, texts, forest, head, image_norm=norm).requires_grad_(False).eval()


def _mean(embeddings: Tensor, leaves: Tensor, forest: Forest, node: int) -> Tensor:
    below = [leaf for leaf in range(forest.leaf_count) if any(node in t.ancestors(leaf) for t in forest.trees)] or [
        node
    ]
    chosen = embeddings[torch.isin(leaves, torch.tensor(below))]
    return nn.functional.normalize(chosen.mean(0), dim=0)


@dataclass(frozen=True)
class Setting:
    """An audit to check: what is audited, in which way, and what happens to its files before the checks."""

    subjects: tuple[Subject, ...]
    images: AuditImages
    forest: Forest = FOREST
    plan: Plan = PLAN
    audited: bool = True
    meddle: Callable[[Path], None] = lambda directory: None
    checked: tuple[Subject, ...] = ()
    """Other subjects than the audited ones."""


def sound(space: Space = Sphere(), **changes: Any) -> Setting:  # noqa: B008
    """An audit that nothing is wrong with, with changes."""
    return replace(Setting((Subject("toy", make_model(space)),), draw_images(120, seed=2)), **changes)


def both_heads() -> Setting:
    """One name, two heads, one audit."""
    return sound(subjects=tuple(Subject("toy", make_model(space)) for space in (Sphere(), Poincare())))
