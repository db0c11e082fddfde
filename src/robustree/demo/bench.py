"""What the page has to show: models, trees and images, the same for everybody and never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robustree.auditing.audit import Subject, predictions
from robustree.checkpoint import device_of
from robustree.data import AuditImages
from robustree.taxonomy import Forest

SAMPLES, CANDIDATES = 12, 64
"""How many images can be picked, and among how many the best are looked for."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image: `pixels` (3, R, R) in [0, 1], and its leaf class where that is known."""

    name: str
    pixels: Tensor
    leaf: int | None


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Models over one forest, the images to pick from, and the directory of an audit if there is one.

    `resolution`: the side to which uploads are cut. `missing`: a sentence about models that could stand beside these.

    Raises:
        ValueError: no model, no tree or no image.
    """

    subjects: tuple[Subject, ...]
    forest: Forest
    samples: tuple[Sample, ...]
    resolution: int
    audit: Path | None = None
    missing: str | None = None

    def __post_init__(self) -> None:
        if not self.subjects or not self.samples or not self.forest.trees:
            raise ValueError(
                f"the page has {len(self.subjects)} models, {len(self.forest.trees)} trees and {len(self.samples)} "
                "images; it needs one of each at least."
            )


def choose_samples(subjects: Sequence[Subject], forest: Forest, images: AuditImages) -> tuple[Sample, ...]:
    """The `SAMPLES` images of which the models get the most decisions right, in the order of the data set."""
    some = images.subset(min(CANDIDATES, len(images.ids)))
    pixels, right = some.pixels[:], torch.zeros(len(some.ids), dtype=torch.long)
    for subject in subjects:
        device = device_of(subject.model)
        with torch.no_grad():
            decided = predictions(subject.model(pixels.to(device)), forest, "direct")
        for cut in forest.cuts():
            truth = torch.tensor(cut.of_leaf)[some.leaves]
            right += decided[cut.label].cpu() == truth
    best = right.argsort(descending=True, stable=True)[:SAMPLES].sort().values.tolist()
    return tuple(
        Sample(name=some.ids[position], pixels=pixels[position], leaf=int(some.leaves[position])) for position in best
    )
