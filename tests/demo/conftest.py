"""A bench of two tiny models: one on the sphere, one in the ball, over the two trees of all tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from robustree.auditing.audit import Subject
from robustree.demo.bench import Bench, Sample
from robustree.geometry import Poincare, Sphere
from robustree.taxonomy import Forest
from robustree.tree_model import TreeModel

SIDE = 6


@pytest.fixture(scope="session")
def bench(make_tree_model: Callable[..., TreeModel], two_trees: Forest, tiny_images: Callable[[int], Tensor]) -> Bench:
    spaces = {"plain": Sphere(), "deep": Poincare(curvature=1.3)}
    models = {name: make_tree_model(space, seed=number) for number, (name, space) in enumerate(spaces.items())}
    subjects = tuple(Subject(name, model.requires_grad_(False).eval()) for name, model in models.items())
    pixels = (tiny_images(4) * 255).round() / 255
    samples = tuple(Sample(name=f"image {k}", pixels=pixels[k], leaf=k) for k in range(3))
    return Bench(subjects=subjects, forest=two_trees, samples=samples, resolution=SIDE)


@pytest.fixture(scope="session")
def unlabelled(bench: Bench) -> Sample:
    draw = torch.Generator().manual_seed(3)
    return Sample(name="mine.png", pixels=torch.rand(3, SIDE, SIDE, generator=draw), leaf=None)
