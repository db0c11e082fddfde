"""Which images a step sees, in which parts and with which noise: a function of (seed, step, chunk) alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from robustree.attacks import ImageNoise
from robustree.training.recipe import Recipe


class TrainingData(Protocol):
    """What the loop needs of a data set. `leaves` (N,) classes; `images(index, generator)` augmented images (B, 3, H,
    W)."""

    @property
    def leaves(self) -> Tensor: ...

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor: ...


@runtime_checkable
class ShardedData(TrainingData, Protocol):
    """Data in files that are read in order; `counts` (S,) images each, and their sha256."""

    @property
    def counts(self) -> Tensor: ...

    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Division:
    """How every batch of a run is divided.

    `chunks`: parts with noise of their own, fixed when the run begins (micro-batches times processes). `split`: parts
    of one chunk that are computed apart, because memory or more processes ask for it; each image keeps its noise.
    """

    chunks: int
    split: int = 1

    @property
    def parts(self) -> int:
        return self.chunks * self.split

    def halved(self) -> Division:
        """Twice as many parts of half the size."""
        return replace(self, split=2 * self.split)

    def share(self, rank: int, world: int) -> range:
        """The parts of one of `world` processes: each part has exactly one."""
        return range(self.parts * rank // world, self.parts * (rank + 1) // world)

    def positions(self, part: int, batch_size: int) -> tuple[int, int, int]:
        """Where a part is in the batch: the start of its chunk, its own start, its end."""
        size = batch_size // self.chunks
        chunk, within = divmod(part, self.split)
        first = chunk * size
        return first, first + size * within // self.split, first + size * (within + 1) // self.split


def first_division(recipe: Recipe, world: int) -> Division:
    """The division of a run that begins: the same for 1 process with 2 micro-batches and 2 processes with 1.

    Raises:
        ValueError: the batch has no such parts.
    """
    chunks = recipe.micro_batches * world
    if recipe.batch_size % chunks:
        raise ValueError(
            f"batch_size {recipe.batch_size} is not a multiple of {chunks} (micro_batches x processes): "
            "choose a multiple."
        )
    return Division(chunks=chunks)


class Part(NamedTuple):
    """Images (B, 3, H, W), their classes (B,), and the source of their attack's noise."""

    images: Tensor
    leaves: Tensor
    generator: torch.Generator


def part_of_batch(
    recipe: Recipe, data: TrainingData, step: int, division: Division, part: int, device: torch.device
) -> Part:
    """One part of the batch of one step."""
    first, start, stop = division.positions(part, recipe.batch_size)
    chunk = part // division.split
    index = images_of_chunk(recipe, data, step, chunk, division.chunks)
    generator = torch.Generator().manual_seed(_seed(recipe.seed, step, chunk))
    images = data.images(index, generator)
    ImageNoise.drawn(generator, start - first, generator.device)  # the seeds of the images before these
    own = slice(start - first, stop - first)
    return Part(images[own].to(device), data.leaves[index[own]].to(device), generator)


def images_of_chunk(recipe: Recipe, data: TrainingData, step: int, chunk: int, chunks: int) -> Tensor:
    """Which images one of the chunks of a batch has.

    Raises:
        ValueError: the recipe has a window, and the data no shards.
    """
    size = recipe.batch_size // chunks
    if recipe.window is None:
        epoch, within = divmod(step, len(data.leaves) // recipe.batch_size)
        order = _permutation(len(data.leaves), _seed(recipe.seed, epoch, -1))
        return order[within * recipe.batch_size + chunk * size :][:size]
    window = max(1, recipe.window // chunks)
    return windowed(recipe.seed, _counts(recipe, data), window, chunk, chunks, step * size, size)


def first_images(recipe: Recipe, data: TrainingData, count: int, generator: torch.Generator) -> Tensor:
    """At most `count` images, from which the scales of a model are set."""
    if recipe.window is None:
        return torch.randperm(len(data.leaves), generator=generator)[:count]
    return windowed(recipe.seed, _counts(recipe, data), recipe.window, 0, 1, 0, min(count, len(data.leaves)))


def _counts(recipe: Recipe, data: TrainingData) -> Tensor:
    if not isinstance(data, ShardedData):
        raise ValueError(f"window is {recipe.window}, but the data has no shards: leave it out, or give shards.")
    return data.counts


def windowed(seed: int, counts: Tensor, window: int, chunk: int, chunks: int, start: int, size: int) -> Tensor:
    """Images number `start` to `start + size` of the endless sequence of one of `chunks` readers.

    Every epoch lays the shards, with `counts` (S,) images each, in a random order behind each other and cuts what
    results into `chunks` equal pieces, of which a reader has one. It reads its piece in order, block by block of
    `window` images, each block in random order: no image twice, none left out, and none that is far away.
    """
    total = int(counts.sum())
    first, last = total * chunk // chunks, total * (chunk + 1) // chunks
    found, position = [], start
    while position < start + size:
        epoch, within = divmod(position, last - first)
        block, inside = divmod(within, window)
        begin = first + block * window
        epoch_seed = _seed(seed, epoch, -1)
        mixed = _permutation(min(window, last - begin), _seed(epoch_seed, block, chunk))
        taken = begin + mixed[inside:][: start + size - position]
        shards = _permutation(len(counts), epoch_seed)
        ends = counts[shards].cumsum(0)
        place = torch.searchsorted(ends, taken, right=True)
        found.append(counts.cumsum(0)[shards[place]] - ends[place] + taken)
        position += len(taken)
    return torch.cat(found)


def _permutation(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _seed(seed: int, step: int, chunk: int) -> int:
    """One 63-bit number for (seed, step, chunk), by mixing, so that neighbouring runs share no stream."""
    mixed = (seed * 0x9E3779B97F4A7C15 + (step + 1) * 0xBF58476D1CE4E5B9 + (chunk + 2) * 0x94D049BB133111EB) % 2**64
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    return (mixed ^ (mixed >> 27)) >> 1
