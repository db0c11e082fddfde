"""A batch as a method sees it, and the same batch as plain numbers."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from robustree.geometry import Space
from robustree.methods import Adversarial, Context
from robustree.taxonomy import Forest
from robustree.tree_model import Scores, TreeModel

LEAVES = (0, 3, 7, 0, 8, 2, 4)


@pytest.fixture
def make_context(
    make_tree_model: Callable[..., TreeModel], tiny_images: Callable[[int], Tensor], two_trees: Forest
) -> Callable[..., Context]:
    """space, forest=, moved= -> seven images of six classes; `moved`: how far training has moved the tuned weights."""

    def make(space: Space, *, forest: Forest = two_trees, moved: float = 0.05) -> Context:
        tuned = make_tree_model(space, forest=forest)
        frozen = deepcopy(tuned).requires_grad_(False)
        draw = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for weight in (*tuned.image_encoder.parameters(), *tuned.text_projection.parameters()):
                weight.add_(moved * torch.randn(weight.shape, generator=draw))
        images = tiny_images(len(LEAVES))
        return Context(images, torch.tensor(LEAVES), tuned.forest, tuned.head, frozen, tuned)

    return make


@pytest.fixture
def make_adversarial() -> Callable[[Context, int], Adversarial]:
    """context, seed -> images that were moved at random, and the tuned model's scores of them."""

    def make(context: Context, seed: int) -> Adversarial:
        noise = torch.rand(context.images.shape, generator=torch.Generator().manual_seed(seed))
        images = (context.images + 0.2 * (noise - 0.5)).clamp(0, 1)
        return Adversarial(images, context.tuned(images))

    return make


@pytest.fixture
def make_scores(two_trees: Forest) -> Callable[[Space, float], Scores]:
    """space, scale -> float64 scores of seven random points at every node of `two_trees`."""

    def make(space: Space, scale: float) -> Scores:
        draw = torch.Generator().manual_seed(11)
        points = torch.randn(len(LEAVES), 4, generator=draw, dtype=torch.float64)
        prototypes = torch.randn(len(two_trees.names), 4, generator=draw, dtype=torch.float64)
        return Scores(points, prototypes, -scale * space.pairwise_distance(points, prototypes))

    return make
