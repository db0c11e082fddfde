"""Victims: a linear one whose distance to the decision boundary is known, a small network, and a planted error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from robustree.attacks import ImageNoise, Threat
from robustree.taxonomy import Cut
from robustree.tree_model import Scores


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

    def lead(self, output: Tensor) -> Tensor:
        return output - self.offset

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


@dataclass(frozen=True, eq=False)
class Network:
    """A small network of a few classes with its images, all of which it classifies as `leaves`.

    `seen` keeps every batch that the network got."""

    classify: Callable[[Tensor], Tensor]
    images: Tensor
    leaves: Tensor
    seen: list[Tensor] = field(default_factory=list)

    def logits(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.classify(x)

    def __call__(self, x: Tensor) -> Scores:
        return Scores(x, x, self.logits(x))

    @property
    def cut(self) -> Cut:
        every = tuple(range(self.classify(self.images[:1]).shape[1]))
        return Cut("", 0, every, every)

    @property
    def forwards(self) -> int:
        return sum(map(len, self.seen))

    def wrong(self, x: Tensor) -> Tensor:
        return self.classify(x).argmax(1) != self.leaves

    def fresh(self) -> Network:
        return replace(self, seen=[])


@pytest.fixture
def make_network() -> Callable[..., Network]:
    """count, classes=, shape=, seed=, width=, gain= -> `Network` of two layers; no number depends on the batch."""

    def make(
        count: int,
        *,
        classes: int = 10,
        shape: tuple[int, ...] = (3, 4, 4),
        seed: int = 0,
        width: int = 64,
        gain: float = 2.0,
    ) -> Network:
        draw = torch.Generator().manual_seed(seed)
        size = torch.Size(shape).numel()
        first = gain * torch.randn(width, size, generator=draw, dtype=torch.float64) / size**0.5
        second = 2 * torch.randn(classes, width, generator=draw, dtype=torch.float64) / width**0.5
        images = torch.rand(count, *shape, generator=draw, dtype=torch.float64)

        def classify(x: Tensor) -> Tensor:
            # Matrix products of one row and of many round differently; sums of products do not.
            hidden = ((x.flatten(1) - 0.5)[:, None] * first.to(x)).sum(2).tanh()
            return (hidden[:, None] * second.to(x)).sum(2)

        return Network(classify, images, classify(images).argmax(1))

    return make


@pytest.fixture
def make_planted() -> Callable[..., Network]:
    """threat, count=, shape= -> `Network` that is right about its images, and wrong around one planted point inside
    the threat of each."""

    def make(threat: Threat, *, count: int = 12, shape: tuple[int, ...] = (3, 6, 6)) -> Network:
        draw = torch.Generator().manual_seed(5)
        images = torch.rand(count, *shape, generator=draw, dtype=torch.float64)
        planted = threat.random_start(images, ImageNoise.drawn(draw, count, images.device), 0)
        weight = torch.randn(40, images[0].numel(), generator=draw, dtype=torch.float64) / images[0].numel() ** 0.5
        features = lambda x: torch.tanh(2 * (x.flatten(1) - 0.5) @ weight.T)  # noqa: E731
        goal, reach = features(planted), (features(planted) - features(images)).square().sum(1)

        def classify(x: Tensor) -> Tensor:
            found = 0.5 - ((features(x)[:, None] - goal).square().sum(2) / reach).amin(1)
            others = features(x)[:, :3] / 10 - 50  # never the best of the wrong classes
            return torch.cat([torch.zeros(len(x), 1, dtype=x.dtype), others, found[:, None]], dim=1)

        return Network(classify, images, torch.zeros(count, dtype=torch.long))

    return make


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets the authors' code compute in float64: it takes constants in torch's default type, and images in float32."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng():
        yield
    torch.set_default_dtype(torch.float32)
