"""What a step costs, against operations counted by hand."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustree.attacks import PGD
from robustree.cli.cost import Pace
from robustree.geometry import Sphere
from robustree.methods import FARE, TeCoA
from robustree.training import Progress
from robustree.training.cost import counted, matmul_peak, operations_an_image, peak_memory
from robustree.training.loop import adamw, select_trained

CPU = torch.device("cpu")


def test_products_convolutions_and_attention_are_counted_forward_and_backward() -> None:
    left, right = torch.rand(3, 5, requires_grad=True), torch.rand(5, 7, requires_grad=True)
    with counted() as operations:
        product = left @ right
    assert operations.total == 2 * 3 * 5 * 7
    with counted() as operations:
        product.sum().backward()
    assert operations.total == 2 * (2 * 3 * 5 * 7)
    with counted() as operations:
        nn.Conv2d(3, 8, 4, stride=4, bias=False)(torch.rand(2, 3, 16, 16))
    assert operations.total == 2 * (2 * 16) * 8 * (3 * 16)
    query = torch.rand(2, 4, 10, 16)
    with counted() as operations:
        F.scaled_dot_product_attention(query, query, query)
    assert operations.total == 2 * (2 * (2 * 4) * 10 * 10 * 16)


@pytest.mark.parametrize("method", [TeCoA(), FARE()])
def test_a_step_is_what_its_passes_are(worker: ModuleType, method: TeCoA | FARE) -> None:
    """Layers of 48 x 16 and 16 x 8 weights, N nodes in 8 dimensions, 12 features a text; texts are not trained."""
    attack = PGD(steps=3, step_size=0.5, best=False)
    recipe = replace(worker.RECIPE, method=method, space=Sphere(), attack=attack)
    model = worker.tree_model(Sphere())
    nodes = len(model.forest.names)
    first, second, distance, text = 2 * 48 * 16, 2 * 16 * 8, 2 * 8 * nodes, 2 * 12 * 8 * nodes
    back = distance if isinstance(method, TeCoA) else 0  # FARE's objective reads no distance
    forward = first + second + distance
    loss = forward + first + 2 * second + back
    image = 3 * (forward + first + second + back) + loss + (forward if isinstance(method, FARE) else 0)
    passes = 4 + isinstance(method, FARE)
    before = [p.requires_grad for p in model.parameters()]
    found = operations_an_image(model, recipe, 4)
    assert found == pytest.approx(image + passes * text / (recipe.batch_size / recipe.micro_batches))
    assert [p.requires_grad for p in model.parameters()] == before
    assert all(p.grad is None for p in model.parameters())


def test_machine_figures_are_of_this_machine() -> None:
    left = torch.ones(2**25)  # 128 MiB
    assert left.nbytes < peak_memory(CPU) < 2**42
    assert 1e8 < matmul_peak(CPU, "fp32") < 1e15


def test_the_pace_leaves_out_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    pace, clock = Pace(), iter([50.0, 52.0, 54.0])
    monkeypatch.setattr("robustree.cli.cost.time.monotonic", lambda: next(clock))
    assert pace.images_a_second is None
    for step in (1, 2, 3):
        pace(Progress(step=step, steps=3, images=8, logs={}))
    assert pace.images_a_second == 4.0


def test_fused_adamw_is_adamw(worker: ModuleType) -> None:
    """The update as Loshchilov & Hutter write it (algorithm 2), in float64: equal to 1e-6 of the weights' size."""
    model = worker.tree_model()
    select_trained(model, text=True)
    recipe = replace(worker.RECIPE, lr=1e-2, weight_decay=0.1)
    optimiser = adamw(model, recipe)
    draw = torch.Generator().manual_seed(0)
    groups = [(group["lr"], parameter) for group in optimiser.param_groups for parameter in group["params"]]
    by_hand = [parameter.detach().double() for _, parameter in groups]
    first, second = ([torch.zeros_like(value) for value in by_hand] for _ in range(2))
    for step in range(1, 21):
        for number, (lr, parameter) in enumerate(groups):
            parameter.grad = torch.randn(parameter.shape, generator=draw)
            gradient = parameter.grad.double()
            first[number] = 0.9 * first[number] + 0.1 * gradient
            second[number] = 0.999 * second[number] + 0.001 * gradient**2
            ascent = first[number] / (1 - 0.9**step) / ((second[number] / (1 - 0.999**step)).sqrt() + 1e-8)
            by_hand[number] = by_hand[number] * (1 - lr * 0.1) - lr * ascent
        optimiser.step()
    for (_, parameter), expected in zip(groups, by_hand, strict=True):
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-6, atol=1e-6)
