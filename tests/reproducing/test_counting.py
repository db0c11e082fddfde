"""What an image takes, against closed forms: passes of every method, FLOPs and parameters of the public encoders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.attacks import APGD, CW, PGD, Search, Square, Threat
from robustree.auditing.plan import LevelAttack, Passes
from robustree.reproducing import EMBEDDED, PAPER, TABLES, Candidate
from robustree.reproducing.counting import KNOWN, Footprint, clip_config, footprint, step_passes


def _candidate(name: str) -> Candidate:
    return next(c for table in TABLES.values() for c in table.candidates if c.name == name)


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("tecoa", (4, 3, 1)),  # three steps of the attack, then the loss
        ("hrft", (4, 3, 1)),  # one attack on all levels costs no more
        ("hrft-5-trees", (4, 3, 1)),
        ("fare", (5, 3, 1)),  # and once the frozen model
        ("agft", (5, 3, 1)),
        ("pmg-aft", (6, 3, 2)),  # the frozen model once, and the tuned one on clean images
    ],
)
def test_passes_of_a_training_step(name: str, passes: tuple[int, int, int]) -> None:
    candidate = _candidate(name)
    assert step_passes(EMBEDDED.recipe(candidate), EMBEDDED.forest(candidate)) == Passes(*passes)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [EMBEDDED, PAPER], ids=lambda scale: scale.name)
def test_one_attack_a_level_takes_as_many_steps_as_there_are_levels(scale) -> None:
    candidate = _candidate("hrft-per-level")
    levels = len(scale.forest(candidate).cuts())
    assert step_passes(scale.recipe(candidate), scale.forest(candidate)) == Passes(4 * levels, 3 * levels, levels)


def _vit_flops(width: int, layers: int, tokens: int, patch: int, out: int) -> tuple[int, int, int]:
    """A ViT's multiply-adds times two: all linear layers, attention, patches (4 and 2 width^2 T a layer)."""
    linear, attention = layers * 24 * width**2 * tokens, layers * 4 * tokens**2 * width
    patches, projection = 2 * (tokens - 1) * 3 * patch**2 * width, 2 * width * out
    forward = linear + attention + patches + projection
    return forward, forward + attention, 2 * forward - patches  # images need no gradient where weights do


@pytest.mark.parametrize(
    ("backbone", "shape", "parameters"),
    [
        ("ViT-B/32", (768, 12, 50, 32, 512), 151_277_313),
        ("ViT-L/14", (1024, 24, 257, 14, 768), 427_616_513),
    ],
)
def test_flops_and_parameters_of_the_public_models(backbone: Any, shape: Any, parameters: int) -> None:
    counted = footprint(KNOWN[backbone])
    assert (counted.forward, counted.image_gradient, counted.weight_gradient) == _vit_flops(*shape)
    assert counted.model == parameters
    assert counted.encoder < counted.model
    inputs = 4 * shape[1] * shape[2] * 8 * shape[0]  # at least: what each layer's matrices multiply, in fp32
    assert inputs < counted.activations < 4 * inputs


def test_flops_add_up() -> None:
    one = Footprint(forward=1.0, image_gradient=10.0, weight_gradient=100.0, activations=0.0, encoder=0, model=0)
    assert one.flops(Passes(4, 3, 1)) == 134


def test_where_an_architecture_is_known_from(tmp_path) -> None:
    assert clip_config("ViT-B/32", "nano")["vision_config"]["image_size"] == 48  # type: ignore[index]
    assert clip_config("ViT-L/14", "openai/clip-vit-large-patch14") == KNOWN["ViT-L/14"]
    assert clip_config("RN50", "open_clip:RN50/openai") is None
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    assert clip_config("ViT-B/32", str(tmp_path)) is None


class _Counted:
    """A model that counts, and an objective that is never achieved."""

    def __init__(self) -> None:
        self.forwards = self.gradients = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        scores = images.flatten(1).sum(1)
        if scores.requires_grad:

            def came_back(gradient: Tensor) -> None:
                self.gradients += len(gradient)

            scores.register_hook(came_back)
        return scores


class _Never:
    def __call__(self, scores: Tensor) -> Tensor:
        return scores

    def lead(self, scores: Tensor) -> Tensor:
        return torch.full_like(scores.detach(), -1.0)

    def take(self, index: Tensor) -> _Never:
        return self


@pytest.mark.parametrize(
    "attack", [PGD(steps=3), PGD(steps=3, restarts=2), APGD(steps=5), Square(queries=7), CW(steps=4, search_steps=1)]
)
def test_an_attack_takes_the_passes_that_it_says(attack: Search) -> None:
    """A forward and a gradient a look, but for the last look of a run; the judgement afterwards is a forward more."""
    model, images = _Counted(), torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    attack(model, images, _Never(), Threat(eps=0.1), generator=torch.Generator().manual_seed(0))
    said = LevelAttack(attack, "margin").passes
    assert model.forwards / 2 + 1 in (said.forwards, said.forwards - attack.restarts)
    assert model.gradients / 2 in (said.image_gradients, said.image_gradients - attack.restarts)
