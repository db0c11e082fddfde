"""One training step: the algorithm box."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustree.attacks import PGD, Threat
from robustree.methods import Adversarial, Context, Method
from robustree.tree_model import Scores, TreeModel


def training_step(
    model: Callable[..., Scores],
    raw: TreeModel,
    frozen: Callable[[Tensor], Scores],
    method: Method,
    attack: PGD,
    threat: Threat,
    images: Tensor,
    leaves: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch and its terms.

    `model` and `raw` are the same weights, wrapped for distribution and not: the attack uses `raw`, the loss `model`.
    """
    context = Context(images, leaves, raw.forest, raw.head, remembering(frozen), model)
    inputs, threats = threatened(method, raw, images, threat)
    with frozen_parameters(raw):
        attacked = [
            attack.joint(raw, inputs, objective, threats, generator=generator) for objective in method.inner(context)
        ]
    return method.loss(context, [Adversarial(moved[0], model(*moved)) for moved in attacked])


def threatened(
    method: Method, raw: TreeModel, images: Tensor, threat: Threat
) -> tuple[tuple[Tensor, ...], tuple[Threat, ...]]:
    """What the attack may move, and how far: the images, and the node texts where the method says so."""
    if method.text_threat is None:
        return (images,), (threat,)
    return (images, raw.text_shift()), (threat, method.text_threat)


def remembering(frozen: Callable[[Tensor], Scores]) -> Callable[[Tensor], Scores]:
    """`frozen`, computed once for the same tensor: an attack's goal and the loss both ask for the clean images."""
    known: list[tuple[Tensor, Scores]] = []

    def ask(images: Tensor) -> Scores:
        for seen, scores in known:
            if seen is images:
                return scores
        known.append((images, frozen(images)))
        return known[-1][1]

    return ask


@contextmanager
def frozen_parameters(module: nn.Module) -> Iterator[None]:
    """No parameter needs a gradient inside: an attack then keeps about half the activations. Restored on any exit."""
    changed = [p for p in module.parameters() if p.requires_grad]
    for parameter in changed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in changed:
            parameter.requires_grad_(True)
