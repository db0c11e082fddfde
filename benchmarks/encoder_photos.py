"""The photographs of the encoder's benchmarks: 200 ImageNet classes at 64 pixels, 150 to train on and 50 kept away.

PHOTOS is a folder with train.parquet (20,000) and val.parquet (5,000), columns image and label, of Tiny-ImageNet."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from robustree.data import CATALOG, DataSet
from robustree.data.decoding import Decoded
from robustree.data.encoded import EncodedImages
from robustree.data.images import AuditImages, Augmented, audited
from robustree.data.readers import read_images
from robustree.taxonomy import Forest, build_forest, read_tree, shipped_tree_file
from robustree.taxonomy.nested import Nested

SIDE = 64
RECORD = CATALOG["tiny_imagenet"]
SEEN = 150
SPLIT_SEED = 0
HELD_BACK = 20  # of the 100 training photographs of a class, for choosing settings


def photos() -> Path:
    """Where the photographs are."""
    return Path(os.environ["PHOTOS"])


@cache
def in_memory(name: str) -> EncodedImages:
    """A parquet file with its JPEGs in memory, so that random batches do not read whole groups of rows."""
    images = read_images(photos() / name, RECORD.classes, ())
    blobs = [images.read(position) for position in range(len(images.ids))]
    return EncodedImages(images.where, images.ids, images.leaves, blobs.__getitem__)


@dataclass(frozen=True)
class Classes:
    """Some of the 200 classes (`numbers`, ascending): their names, trees and photographs."""

    numbers: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(RECORD.classes[number] for number in self.numbers)

    def forest(self, trees: tuple[str, ...] | None = None) -> Forest:
        """The shipped trees without the other classes; levels that this leaves alike are dropped."""
        kept, sources = frozenset(self.names), []
        for tree in trees if trees is not None else RECORD.trees:
            source = read_tree(shipped_tree_file(RECORD.name, tree), RECORD.classes)
            sources.append(replace(source, nested=restricted(source.nested, kept)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return build_forest(self.names, sources)

    def of(self, images: EncodedImages) -> EncodedImages:
        """The images of these classes, labelled by their place among them."""
        place = torch.full((len(RECORD.classes),), -1)
        place[list(self.numbers)] = torch.arange(len(self.numbers))
        index = (place[images.leaves] >= 0).nonzero()[:, 0]
        own = images.take(index)
        return replace(own, leaves=place[own.leaves])

    def training(self) -> EncodedImages:
        return self.of(in_memory("train.parquet").take(_fold(held_back=False)))

    def held_back(self) -> AuditImages:
        """Training photographs that no run trains on: learning rates and eps were chosen on these."""
        return audited(self.of(in_memory("train.parquet").take(_fold(held_back=True))), SIDE)

    def validation(self) -> AuditImages:
        return audited(self.of(in_memory("val.parquet")), SIDE)

    def data(self) -> DataSet:
        """What `harden` trains on; images keep their 64 pixels, whatever the model scales them to."""
        return DataSet(
            name=f"{RECORD.name}, {len(self.numbers)} classes",
            about=RECORD.about,
            forest=self.forest,
            training=lambda size: Augmented(Decoded(self.training(), SIDE)),
            audit=lambda size: self.validation(),
        )


def _fold(*, held_back: bool) -> Tensor:
    leaves, seen, chosen = in_memory("train.parquet").leaves.tolist(), [0] * len(RECORD.classes), []
    for position in torch.randperm(len(leaves), generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist():
        seen[leaves[position]] += 1
        if (seen[leaves[position]] <= HELD_BACK) == held_back:
            chosen.append(position)
    return torch.tensor(sorted(chosen))


def split() -> tuple[Classes, Classes]:
    """The classes that are trained on, and those that never are."""
    order = torch.randperm(len(RECORD.classes), generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    return Classes(tuple(sorted(order[:SEEN]))), Classes(tuple(sorted(order[SEEN:])))


def restricted(node: Nested, kept: frozenset[str]) -> Nested:
    """The children with the leaves that are kept, and without groups that have none."""
    if isinstance(node, str):
        return node
    if isinstance(node, list | tuple):
        inner = [leaf if isinstance(leaf, str) else restricted(leaf, kept) for leaf in node]
        return [child for child in inner if (child in kept if isinstance(child, str) else child)]
    children = {name: restricted(child, kept) for name, child in node.items()}
    return {name: child for name, child in children.items() if child}
