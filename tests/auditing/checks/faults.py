"""Mistakes as users make them: modules around a model, other images, other attacks, other files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustree.attacks import PGD, Threat
from robustree.auditing.audit import Subject
from robustree.auditing.plan import LevelAttack
from robustree.data import AuditImages
from robustree.tree_model import Scores, TreeModel


class Before(nn.Module):
    """Something that happens to the images before the encoder."""

    def __init__(self, change: Callable[[Tensor], Tensor], encoder: nn.Module) -> None:
        super().__init__()
        self.change, self.encoder = change, encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(self.change(images))


class Altered(TreeModel):
    """A model whose scores are changed on the way out."""

    alter: Callable[[Tensor], Tensor]

    def forward(self, images: Tensor, text_shift: Tensor | None = None) -> Scores:
        scores = super().forward(images, text_shift)
        return scores._replace(nodes=self.alter(scores.nodes))


def before(model: TreeModel, change: Callable[[Tensor], Tensor]) -> TreeModel:
    model.image_encoder = Before(change, model.image_encoder)
    return model


def after(model: TreeModel, change: Callable[[Tensor], Tensor]) -> TreeModel:
    model.__class__, model.alter = Altered, change  # type: ignore[assignment]
    return model


def normalise(images: Tensor) -> Tensor:
    return (images - 0.5) / 0.25


def quantise(images: Tensor) -> Tensor:
    return (images * 8).round() / 8


def rough(images: Tensor) -> Tensor:
    """A fast ripple: smooth, but no gradient says where to go."""
    return images + 0.2 * torch.sin(600 * math.pi * images)


def waved(images: Tensor) -> Tensor:
    """A slower one: what falls at a small eps is whole again at twice that."""
    return images + 0.05 * torch.sin(60 * math.pi * images)


def root(images: Tensor) -> Tensor:
    """The identity, with a gradient of inf * 0."""
    return images + (images * 0).sqrt()


class _Backwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


def backwards(images: Tensor) -> Tensor:
    """The identity, with its gradient's sign turned."""
    return _Backwards.apply(images)


def purify(images: Tensor) -> Tensor:
    """A defence that takes a gradient step itself."""
    with torch.enable_grad():
        x = images.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(x.square().sum(), x)
    return images - 1e-6 * slope


class Counting(nn.Module):
    """An encoder that counts its calls in a buffer."""

    calls: Tensor

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.encoder(images)


@dataclass(frozen=True)
class LastIterate:
    """Large momentum steps, of which the last image is returned, whatever it is."""

    steps: int = 12
    name: str = "careless"

    def __call__(
        self, f: Any, images: Tensor, objective: Any, threat: Threat, *, generator: Any, batch_size: Any
    ) -> Tensor:
        x, velocity = images, torch.zeros_like(images)
        for step in range(self.steps):
            x = x.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(objective(f(x)).sum(), x)
            velocity = slope.sign() if step < self.steps - 1 else -slope.sign()
            x = threat.project(x.detach() + 2 * threat.eps * velocity, images)
        return x


@dataclass(frozen=True)
class Idle:
    """An attack that does nothing."""

    name: str = "idle"

    def __call__(self, f: Any, images: Tensor, objective: Any, threat: Threat, **ignored: Any) -> Tensor:
        return images.clone()


@dataclass(frozen=True)
class Guess:
    """One random image."""

    name: str = "guess"

    def __call__(
        self, f: Any, images: Tensor, objective: Any, threat: Threat, *, generator: Any, batch_size: Any
    ) -> Tensor:
        return threat.random_start(images, generator, 0)


@dataclass(frozen=True)
class Straying:
    """An attack that takes twice the eps that it is given."""

    name: str = "straying"

    def __call__(self, f: Any, images: Tensor, objective: Any, threat: Threat, **more: Any) -> Tensor:
        return PGD(steps=5)(f, images, objective, replace(threat, eps=2 * threat.eps), **more)


@dataclass(frozen=True)
class Wrapped:
    """An attack around another one."""

    attack: PGD
    name: str = "wrapped"

    def __call__(self, *arguments: Any, **more: Any) -> Tensor:
        return self.attack(*arguments, **more)


def only(attack: Any) -> dict[str, Any]:
    """The changes of a plan that has this attack alone."""
    return {"attacks": (LevelAttack(attack),), "all_levels": None}


def pixels_of(images: AuditImages, change: Callable[[Tensor], Tensor]) -> AuditImages:
    return replace(images, pixels=change(images.pixels))


def rewrite(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Callable[[Path], None]:
    """Change an audit's rows."""

    def go(directory: Path) -> None:
        path = directory / "rows.jsonl"
        rows = change([json.loads(line) for line in path.read_text().splitlines()])
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return go


def named(model: TreeModel) -> tuple[Subject, ...]:
    return (Subject("toy", model),)


def dropping(given: TreeModel) -> TreeModel:
    given.image_encoder = nn.Sequential(given.image_encoder, nn.Dropout(0.2))
    return given.requires_grad_(False)


def counting(given: TreeModel) -> TreeModel:
    given.image_encoder = Counting(given.image_encoder)
    return given
