"""A linear victim, whose distance to the decision boundary is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Linear:
    """f(x) = w.x - b with one b an image: the objective is positive exactly on the far side of the boundary.

    Every image of `images` lies at the same distance before it, in the norm of `make`.
    """

    weight: Tensor
    images: Tensor
    offset: Tensor
    norm: str
    seen: list[int] = field(default_factory=list)

    def __call__(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return (x * self.weight).flatten(1).sum(1)

    @property
    def objective(self) -> Above:
        return Above(self.offset)


@dataclass(frozen=True, eq=False)
class Above:
    """The objective output - offset; records every value under the position of its image."""

    offset: Tensor
    index: Tensor | None = None
    record: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, output: Tensor) -> Tensor:
        values = output - self.offset
        index = torch.arange(len(values)) if self.index is None else self.index
        self.record.append((index, values.detach().clone()))
        return values

    def achieved(self, output: Tensor) -> Tensor:
        return output > self.offset

    def take(self, index: Tensor) -> Above:
        where = index if self.index is None else self.index[index]
        return replace(self, offset=self.offset[index], index=where)


@pytest.fixture
def make_linear() -> Callable[..., Linear]:
    """shape (B, 3, H, W), norm, distance -> `Linear` with its images well inside the box."""

    def make(shape: tuple[int, ...], norm: str, distance: float | Tensor, *, seed: int = 0) -> Linear:
        draw = torch.Generator().manual_seed(seed)
        weight = torch.randn(shape[1:], generator=draw, dtype=torch.float64)
        images = 0.3 + 0.4 * torch.rand(shape, generator=draw, dtype=torch.float64)
        dual = weight.abs().sum() if norm == "linf" else weight.norm()
        return Linear(weight, images, (images * weight).flatten(1).sum(1) + distance * dual, norm)

    return make
