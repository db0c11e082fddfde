"""Compiled and checkpointed encoders: the same numbers, and as many graphs and forward passes as claimed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.attacks import PGD, Threat
from robustree.geometry import Poincare, Space, Sphere
from robustree.methods import FARE, Hierarchical, Method
from robustree.models import load
from robustree.models.encoder import ImageEncoder
from robustree.taxonomy import Forest
from robustree.training import Recipe, Runtime, train
from robustree.training.acceleration import accelerated, layers
from robustree.training.step import frozen_parameters
from robustree.tree_model import TreeModel, build_tree_model

STEPS = 3


class Images:
    """Six images of as many classes."""

    leaves = torch.arange(6)

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor:
        pixels = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(3))[index]
        return (pixels + 0.1 * torch.rand(pixels.shape, generator=generator)).clamp(0, 1)


@pytest.fixture
def make_model(clip_directory: Path, two_trees: Forest) -> Callable[[Space], TreeModel]:
    """space -> the random transformers model over two trees, the same weights every time."""
    return lambda space: build_tree_model(
        load(str(clip_directory)), two_trees, images=torch.full((4, 3, 16, 16), 0.3), space=space
    )


def _trained(model: TreeModel, method: Method, directory: Path, space: Space, **options: Any) -> dict[str, Tensor]:
    recipe = Recipe(
        method=method,
        space=space,
        attack=PGD(steps=2, step_size=0.5, best=False),
        threat=Threat(eps=8 / 255),
        steps=STEPS,
        batch_size=4,
        lr=1e-3,
    )
    stop = options.pop("stop", lambda: False)
    train(model, recipe, Images(), directory=directory, runtime=Runtime(cpu=True, **options), stop=stop)
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(("method", "space"), [(FARE(), Sphere()), (Hierarchical(), Poincare())])
def test_checkpointing_changes_no_bit_and_covers_the_attack(
    make_model: Callable[[Space], TreeModel], tmp_path: Path, method: Method, space: Space
) -> None:
    plain = _trained(make_model(space), method, tmp_path / "plain", space)
    model, passes = make_model(space), []
    layer = layers(model.image_encoder)[0]
    layer.layer_norm1.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))  # type: ignore[union-attr]
    options: dict[str, Any] = {"activation_checkpointing": True}
    _trained(model, method, tmp_path / "kept", space, stop=lambda: True, **options)
    # Two gradients of the attack and that of the loss, each computed twice; the frozen copy has the hook as well.
    assert sum(passes) == 6 and len(passes) - sum(passes) == isinstance(method, FARE)
    kept = _trained(
        make_model(space), method, tmp_path / "kept", space
    )  # the second and third step without: still the same run
    assert all(torch.equal(plain[name], kept[name]) for name in plain)
    assert (tmp_path / "plain" / "log.csv").read_bytes() == (tmp_path / "kept" / "log.csv").read_bytes()


def test_checkpointing_keeps_less(make_model: Callable[[Space], TreeModel]) -> None:
    encoder, kept = make_model(Sphere()).image_encoder, {}
    for wanted in (False, True):
        saved: list[int] = []

        def pack(tensor: Tensor, saved: list[int] = saved) -> Tensor:
            saved.append(tensor.nbytes)
            return tensor

        images = torch.rand(4, 3, 16, 16, requires_grad=True)
        with (
            accelerated(encoder, activation_checkpointing=wanted),
            frozen_parameters(encoder),  # as in the attack
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            encoder(images)
        kept[wanted] = sum(saved)
    assert kept[True] < 0.4 * kept[False]


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """torch.compile without code generation, and what it counts."""
    from torch import _dynamo
    from torch._dynamo.utils import counters

    _dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    yield counters
    _dynamo.reset()


def test_three_graphs_serve_attack_loss_and_audit_in_any_order(
    make_model: Callable[[Space], TreeModel], counters: Any
) -> None:
    encoder = make_model(Sphere()).image_encoder.requires_grad_(True)
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))

    def attack() -> list[Tensor]:
        with frozen_parameters(encoder):
            moved = images.clone().requires_grad_(True)
            return list(torch.autograd.grad(encoder(moved).square().sum(), moved))

    def loss() -> list[Tensor]:
        return list(torch.autograd.grad(encoder(images).square().sum(), list(encoder.parameters())))

    @torch.no_grad()
    def audit() -> list[Tensor]:
        return [encoder(images)]

    plain = [work() for work in (attack, loss, audit)]
    with accelerated(encoder, compiled=True):
        for order in ((0, 1, 2), (2, 0, 1), (1, 1, 0), (0, 2, 2)):
            for number in order:
                found = (attack, loss, audit)[number]()
                for ours, expected in zip(found, plain[number], strict=True):
                    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    assert counters["stats"]["unique_graphs"] == 3
    assert not counters["graph_break"]
    assert encoder.forward.__func__ is ImageEncoder.forward  # type: ignore[attr-defined]


def test_a_compiled_run_has_a_graph_for_the_attack_the_loss_and_the_frozen_copy(
    make_model: Callable[[Space], TreeModel], tmp_path: Path, counters: Any
) -> None:
    plain = _trained(make_model(Sphere()), FARE(), tmp_path / "plain", Sphere())
    compiled = _trained(make_model(Sphere()), FARE(), tmp_path / "compiled", Sphere(), compiled=True)
    assert counters["stats"]["unique_graphs"] == 3
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_an_encoder_without_a_list_of_layers_is_refused(
    worker: ModuleType, make_model: Callable[[Space], TreeModel], tmp_path: Path
) -> None:
    assert [type(layer).__name__ for layer in layers(make_model(Sphere()).image_encoder)] == 2 * ["CLIPEncoderLayer"]
    runtime = Runtime(cpu=True, activation_checkpointing=True)
    with pytest.raises(ValueError) as caught:
        train(worker.tree_model(), worker.RECIPE, worker.Pictures(), directory=tmp_path, runtime=runtime)
    assert str(caught.value) == (
        "Encoder has no list of layers whose activations could be computed again: switch activation_checkpointing off."
    )
