"""TeCoA, PMG-AFT, FARE and AGFT against their formulas (docs/method.md, section 6), written here in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robustree.attacks import PGD, Threat
from robustree.geometry import Sphere
from robustree.methods import AGFT, FARE, PMGAFT, Adversarial, Context, Method, TeCoA
from robustree.tree_model import Scores, TreeModel

MakeContext = Callable[..., Context]
MakeAdversarial = Callable[[Context, int], Adversarial]
BASELINES = [TeCoA(), PMGAFT(), FARE(), AGFT()]


def cosines(model: Any, images: Tensor) -> np.ndarray:
    """Image-text cosines (B, K) from the towers alone, in float64."""
    assert isinstance(model, TreeModel)
    count = model.forest.leaf_count
    embeddings = model.image_encoder(images).detach().double().numpy()
    texts = (model.text_features[:count] @ model.text_projection.weight.T).detach().double().numpy()
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    return embeddings @ texts.T


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def cross_entropy(logits: np.ndarray, leaves: Tensor) -> float:
    return float(-np.log(softmax(logits)[np.arange(len(leaves)), leaves.numpy()]).mean())


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum(axis=1).mean())


def embedding(model: Any, images: Tensor) -> np.ndarray:
    return model.image_encoder(images).detach().double().numpy()


def test_tecoa(make_context: MakeContext, make_adversarial: MakeAdversarial) -> None:
    context = make_context(Sphere())
    made = make_adversarial(context, 1)
    loss, terms = TeCoA().loss(context, [made])
    expected = cross_entropy(100 * cosines(context.tuned, made.images), context.leaves)
    assert loss.item() == pytest.approx(expected, rel=1e-4) == terms["cross_entropy"].item()
    (objective,) = TeCoA().inner(context)
    assert objective(made.scores).mean().item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("scale", [100.0, 1.0])
@pytest.mark.parametrize(("general", "clean"), [(1.0, 1.0), (0.3, 2.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_pmg_aft(
    scale: float, general: float, clean: float, make_context: MakeContext, make_adversarial: MakeAdversarial
) -> None:
    # the paper's form is at CLIP's temperature (100); the released code cancels it (1)
    context = make_context(Sphere())
    made = make_adversarial(context, 1)
    method = PMGAFT(general=general, clean=clean, temperature_free=scale == 1.0)
    loss, terms = method.loss(context, [made])
    attacked = scale * cosines(context.tuned, made.images)
    pretrained = softmax(scale * cosines(context.frozen, made.images))
    natural = softmax(scale * cosines(context.tuned, context.images))
    expected = {
        "cross_entropy": cross_entropy(attacked, context.leaves),
        "general": divergence(pretrained, softmax(attacked)),
        "clean": divergence(natural, softmax(attacked)),
    }
    total = expected["cross_entropy"] + general * expected["general"] + clean * expected["clean"]
    assert loss.item() == pytest.approx(total, rel=1e-3)
    kept = {"cross_entropy"} | ({"general"} if general else set()) | ({"clean"} if clean else set())
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {name: expected[name] for name in kept}, rel=1e-3
    )
    (objective,) = method.inner(context)
    ce = cross_entropy(100 * cosines(context.tuned, made.images), context.leaves)
    assert objective(made.scores).mean().item() == pytest.approx(ce, rel=1e-4)


def test_pmg_aft_forwards_only_what_it_needs(make_context: MakeContext, make_adversarial: MakeAdversarial) -> None:
    context = make_context(Sphere())
    made = make_adversarial(context, 1)

    def never(images: Tensor) -> Scores:
        raise AssertionError("a term with weight 0 costs a forward")

    PMGAFT(general=0, clean=0).loss(context._replace(frozen=never, tuned=never), [made])
    PMGAFT(clean=0).loss(context._replace(tuned=never), [made])


def test_fare(make_context: MakeContext, make_adversarial: MakeAdversarial) -> None:
    context = make_context(Sphere())
    made = make_adversarial(context, 1)
    gap = embedding(context.tuned, made.images) - embedding(context.frozen, context.images)
    expected = float((gap**2).sum(axis=1).mean())
    loss, terms = FARE().loss(context, [made])
    assert loss.item() == pytest.approx(expected, rel=1e-4) == terms["embedding_shift"].item()


def test_the_inner_loss_of_fare_is_exactly_0_on_clean_images_until_the_weights_move(make_context: MakeContext) -> None:
    start = make_context(Sphere(), moved=0.0)
    (objective,) = FARE().inner(start)
    assert objective(start.tuned(start.images)).tolist() == [0.0] * 7
    # the gradient is 0 there too, so the attack can only leave by its random start
    stuck, moving = (
        PGD(steps=3, random_start=random).joint(
            start.tuned, [start.images], objective, [Threat(eps=4 / 255)], generator=torch.Generator().manual_seed(0)
        )[0]
        for random in (False, True)
    )
    assert torch.equal(stuck, start.images)
    assert (objective(start.tuned(moving)) > 0).all()
    trained = make_context(Sphere(), moved=1e-3)
    (objective,) = FARE().inner(trained)
    assert (objective(trained.tuned(trained.images)) > 0).all()


def test_agft(make_context: MakeContext, make_adversarial: MakeAdversarial) -> None:
    # student at scale 180, soft labels of the frozen model on the clean images at 0.4 * 180
    context = make_context(Sphere())
    made = make_adversarial(context, 1)
    soft = softmax(0.4 * 180 * cosines(context.frozen, context.images))
    student = softmax(180 * cosines(context.tuned, made.images))
    expected = float(-(soft * np.log(student)).sum(axis=1).mean())
    loss, terms = AGFT().loss(context, [made])
    assert loss.item() == pytest.approx(expected, rel=1e-3) == terms["soft_cross_entropy"].item()
    (objective,) = AGFT().inner(context)
    assert np.allclose(objective.probabilities.numpy(), soft, atol=1e-4)
    assert torch.allclose(objective.probabilities.sum(1), torch.ones(7))
    assert not objective.probabilities.requires_grad


def test_agft_is_minimal_when_the_student_is_the_softened_teacher(make_context: MakeContext) -> None:
    context = make_context(Sphere())
    method = AGFT(sharpness=1.8, softening=0.4)
    teacher = context.frozen(context.images)
    matched = Adversarial(context.images, teacher._replace(nodes=0.4 * teacher.nodes))
    least, _ = method.loss(context, [matched])
    soft = method.inner(context)[0].probabilities
    assert least.item() == pytest.approx(torch.special.entr(soft).sum(1).mean().item(), rel=1e-5)
    nodes = matched.scores.nodes.clone().requires_grad_(True)
    loss, _ = method.loss(context, [Adversarial(context.images, teacher._replace(nodes=nodes))])
    (gradient,) = torch.autograd.grad(loss, nodes)
    assert gradient.abs().max() < 1e-6
    draw = torch.Generator().manual_seed(0)
    for size in (0.01, 0.1, 1.0, 10.0):
        noise = size * torch.randn(nodes.shape, generator=draw)
        other = Adversarial(context.images, teacher._replace(nodes=nodes.detach() + noise))
        assert method.loss(context, [other])[0] > least


@pytest.mark.parametrize("method", BASELINES, ids=lambda method: type(method).__name__)
def test_baselines_train_the_image_tower_alone_with_finite_gradients(
    method: Method, make_context: MakeContext, make_adversarial: MakeAdversarial
) -> None:
    assert method.trains_text is False and method.text_threat is None
    context = make_context(Sphere())
    tuned = context.tuned
    assert isinstance(tuned, TreeModel)
    tuned.text_projection.requires_grad_(method.trains_text)
    loss, terms = method.loss(context, [make_adversarial(context, 1)])
    loss.backward()
    assert loss.ndim == 0 and not any(term.requires_grad for term in terms.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in tuned.image_encoder.parameters())
    assert all(p.grad is None for p in tuned.text_projection.parameters())
    assert len(method.inner(context)) == 1
    assert method.inner(context)[0](tuned(context.images)).shape == (7,)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_weights_that_are_no_weights_are_refused(bad: float) -> None:
    for name in ("general", "clean"):
        with pytest.raises(ValueError, match=rf"^{name} is {bad}; weights are at least 0: 0 switches the part off\.$"):
            PMGAFT(**{name: bad})
    for name in ("sharpness", "softening"):
        with pytest.raises(ValueError, match=rf"^{name} is {bad}; it multiplies logits, so it is finite and above 0"):
            AGFT(**{name: bad})
    with pytest.raises(ValueError, match=r"^sharpness is 0; "):
        AGFT(sharpness=0)
