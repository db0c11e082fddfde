"""The training step against the same thing written out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from robustree.attacks import PGD, ImageNoise, Threat
from robustree.geometry import Sphere
from robustree.methods import AGFT, FARE, PMGAFT, Adversarial, Context, Hierarchical, TeCoA
from robustree.training import frozen_parameters, training_step
from robustree.training.loop import Frozen, select_trained

EPS = 8 / 255
ATTACK = PGD(steps=3, step_size=0.5, best=False)


@pytest.fixture
def batch(worker: ModuleType) -> tuple[Tensor, Tensor]:
    data = worker.Pictures()
    index = torch.arange(6)
    return data.images(index, torch.Generator().manual_seed(1)), data.leaves[index]


def start_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform numbers from [-1, 1), as the attack draws them."""
    noise = ImageNoise.drawn(generator, len(images), images.device)
    return 2 * noise.uniform(0, images.shape[1:], images.dtype) - 1


def _gradients(loss: Tensor, model: torch.nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


def test_tecoa_is_this_loop(worker: ModuleType, batch: tuple[Tensor, Tensor]) -> None:
    images, leaves = batch
    model = worker.tree_model(Sphere())
    select_trained(model, text=False)
    loss, _ = training_step(
        model,
        model,
        Frozen(model),
        TeCoA(),
        ATTACK,
        Threat(eps=EPS),
        images,
        leaves,
        torch.Generator().manual_seed(2),
    )

    def logits(x: Tensor) -> Tensor:
        texts = F.normalize(model.text_projection(model.text_features[:5]))
        return 5.0 * (F.normalize(model.image_encoder(x)) @ texts.T - 1)

    x = (images + start_noise(images, torch.Generator().manual_seed(2)) * EPS).clamp(0, 1)
    for _ in range(3):
        x = x.detach().requires_grad_(True)
        (ascent,) = torch.autograd.grad(F.cross_entropy(logits(x), leaves, reduction="sum"), x)
        x = (images + (x.detach() + 0.5 * EPS * ascent.sign() - images).clamp(-EPS, EPS)).clamp(0, 1)
    by_hand = F.cross_entropy(logits(x.detach()), leaves)

    torch.testing.assert_close(loss, by_hand, rtol=1e-5, atol=1e-6)
    for ours, expected in zip(_gradients(loss, model), _gradients(by_hand, model), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        clean = F.cross_entropy(logits(images), leaves)
    assert loss > clean


def test_hierarchical_moves_images_and_texts_together(worker: ModuleType, batch: tuple[Tensor, Tensor]) -> None:
    images, leaves = batch
    method, model = Hierarchical(text_eps=1e-3), worker.tree_model()
    select_trained(model, text=True)
    frozen = Frozen(model)
    loss, terms = training_step(
        model, model, frozen, method, ATTACK, Threat(eps=EPS), images, leaves, torch.Generator().manual_seed(2)
    )
    context = Context(images, leaves, model.forest, model.head, frozen, model)
    (objective,) = method.inner(context)
    draw = torch.Generator().manual_seed(2)
    x = (images + start_noise(images, draw) * EPS).clamp(0, 1)
    t = start_noise(model.text_features, draw) * 1e-3
    for _ in range(3):
        x, t = x.detach().requires_grad_(True), t.detach().requires_grad_(True)
        up, along = torch.autograd.grad(objective(model(x, t)).sum(), [x, t])
        x = (images + (x.detach() + 0.5 * EPS * up.sign() - images).clamp(-EPS, EPS)).clamp(0, 1)
        t = (t.detach() + 0.5 * 1e-3 * along.sign()).clamp(-1e-3, 1e-3)
    by_hand, _ = method.loss(context, [Adversarial(x.detach(), model(x.detach(), t.detach()))])
    torch.testing.assert_close(loss, by_hand, rtol=1e-5, atol=1e-6)
    for ours, expected in zip(_gradients(loss, model), _gradients(by_hand, model), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)
    assert set(terms) == {"alignment", "vic", "gap_label", "gap_image"}
    assert not any(value.requires_grad for value in terms.values())


class _Watching(PGD):
    """Remembers what needed a gradient during the attack; fails when told to."""

    def joint(self, f: Any, inputs: Sequence[Tensor], *rest: Any, **named: Any) -> tuple[Tensor, ...]:
        needed.extend(p.requires_grad for p in f.parameters())
        if fails[0]:
            raise RuntimeError("the attack failed")
        return super().joint(f, inputs, *rest, **named)


needed: list[bool] = []
fails = [False]


@pytest.mark.parametrize("failing", [False, True])
def test_parameters_are_frozen_in_the_attack_and_as_before_after_it(
    worker: ModuleType, batch: tuple[Tensor, Tensor], failing: bool
) -> None:
    model = worker.tree_model()
    select_trained(model, text=True)
    before = [p.requires_grad for p in model.parameters()]
    assert any(before) and not all(before)
    needed.clear()
    fails[0] = failing
    attack = _Watching(steps=1, best=False)
    arguments = (model, model, Frozen(model), Hierarchical(), attack, Threat(eps=EPS), *batch, torch.Generator())
    if failing:
        with pytest.raises(RuntimeError, match="the attack failed"):
            training_step(*arguments)
    else:
        training_step(*arguments)
    assert needed and not any(needed)
    assert [p.requires_grad for p in model.parameters()] == before


def test_freezing_keeps_gradients_that_were_there(worker: ModuleType) -> None:
    model = worker.tree_model().image_encoder
    model(torch.rand(2, 3, 4, 4)).sum().backward()
    held = [parameter.grad for parameter in model.parameters()]
    with frozen_parameters(model):
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(p.grad is grad and p.requires_grad for p, grad in zip(model.parameters(), held, strict=True))


def test_only_the_image_encoder_and_at_most_the_text_projection_are_trained(worker: ModuleType) -> None:
    model = worker.tree_model()
    for text in (True, False):
        select_trained(model, text=text)
        names = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
        assert names == ({"image_encoder", "text_projection"} if text else {"image_encoder"})


@pytest.mark.parametrize(("method", "passes"), [(FARE(), 1), (AGFT(), 1), (PMGAFT(), 1), (TeCoA(), 0)])
def test_the_frozen_model_sees_the_same_images_once(
    worker: ModuleType, batch: tuple[Tensor, Tensor], method: Any, passes: int
) -> None:
    model = worker.tree_model(Sphere())
    frozen, seen = Frozen(model), []
    frozen.model.register_forward_pre_hook(lambda *_: seen.append(1))
    training_step(model, model, frozen, method, ATTACK, Threat(eps=EPS), *batch, torch.Generator().manual_seed(2))
    assert len(seen) == passes


def test_the_frozen_copy_is_the_model_as_it_was(worker: ModuleType) -> None:
    model, images = worker.tree_model(), torch.rand(3, 3, 4, 4)
    before = model(images)
    frozen = Frozen(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    after = frozen(images)
    assert torch.equal(after.nodes, before.nodes)
    assert not after.nodes.requires_grad
    assert not torch.equal(model(images).nodes, before.nodes)
