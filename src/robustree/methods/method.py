"""The contract of a method: what its attack maximises, and what the weights minimise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from robustree.attacks.threat import Threat
from robustree.objectives import Objective
from robustree.taxonomy import Forest
from robustree.tree_model import Head, Scores


class Context(NamedTuple):
    """One training batch as a method sees it.

    `images` (B, 3, H, W) clean, `leaves` (B,) their classes; `frozen` the pretrained model (no gradient) and `tuned`
    the model in training, both images -> `Scores`; `forest` and `head` belong to the tuned model."""

    images: Tensor
    leaves: Tensor
    forest: Forest
    head: Head
    frozen: Callable[[Tensor], Scores]
    tuned: Callable[[Tensor], Scores]


class Adversarial(NamedTuple):
    """What one attack made: `images` (B, 3, H, W) and the tuned model's `scores` of them, with gradient."""

    images: Tensor
    scores: Scores


class Method(Protocol):
    """`trains_text`: whether the text projection is trained. `text_threat`: how far texts move in the attack, or
    None."""

    @property
    def trains_text(self) -> bool: ...

    @property
    def text_threat(self) -> Threat | None: ...

    def inner(self, context: Context) -> Sequence[Objective]:
        """What the attack maximises; one attack is run for each objective (most methods have one)."""
        ...

    def loss(self, context: Context, adversarial: Sequence[Adversarial]) -> tuple[Tensor, dict[str, Tensor]]:
        """What the weights minimise, from what each attack made; and the terms to log."""
        ...
