"""Images of `robustree attack` and `robustree classify`: at their own size, labelled or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robustree.attacks import Objective
from robustree.data import read_image
from robustree.data.readers.folder import SUFFIXES, image_files, labelled_files
from robustree.objectives import CrossEntropy, EveryLevel, Loss, Margin
from robustree.taxonomy import Cut, Forest

_MOST_IMAGES, _MOST_PIXELS = 32, 2_000_000  # of one batch


@dataclass(frozen=True)
class Picture:
    """An image file, its name in results, and its class if a folder says so."""

    file: Path
    name: str
    leaf: int | None


@dataclass(frozen=True)
class Goal:
    """What an attack is to change: the decisions at `cuts` (all at once if several), or one decision to `towards`, a
    node of the cut or several (the leaves of a subtree).

    `truth[cut.label]` (B,) is each image's right node, as an index into the cut.
    """

    cuts: tuple[Cut, ...]
    truth: dict[str, Tensor]
    towards: int | tuple[int, ...] | None = None

    def objective(self, loss: Loss | None) -> Objective:
        """What the attack maximises: a loss of one level (None: its decision, for a cascade), or the mean cross-entropy
        of several."""
        if len(self.cuts) == 1:
            cut = self.cuts[0]
            decision = Margin(cut, self._leaves(cut), towards=self.towards)
            return decision if loss is None else decision.under(loss)
        parts = tuple(CrossEntropy(cut, self._leaves(cut)) for cut in self.cuts)
        return EveryLevel(parts, (1 / len(parts),) * len(parts)).under(loss or "cross_entropy")

    def _leaves(self, cut: Cut) -> Tensor:
        """A leaf (B,) below each image's right node; which one does not matter, for a level looks at its node only."""
        truth = self.truth[cut.label]
        first = [cut.of_leaf.index(node) for node in range(len(cut.nodes))]
        return torch.tensor(first, device=truth.device)[truth]

    def reached(self, decided: dict[str, Tensor]) -> Tensor:
        """(B,) whether decisions are what the attack wants: wrong (at one level at least), or `towards`."""
        if self.towards is not None:
            wanted = (self.towards,) if isinstance(self.towards, int) else self.towards
            made = decided[self.cuts[0].label]
            return torch.isin(made, torch.tensor(wanted, device=made.device))
        wrong = [decided[cut.label] != self.truth[cut.label] for cut in self.cuts]
        return torch.stack(wrong).any(0)


def find_pictures(folder: Path, forest: Forest) -> tuple[Picture, ...]:
    """The images of a folder: in class sub-folders, or plain and unlabelled.

    Raises:
        ValueError: no such folder, no images, both kinds at once, or a sub-folder that is no class.
    """
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is not a folder; give a folder of images, or of class sub-folders.")
    plain = image_files(folder)
    inside = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if plain and inside:
        raise ValueError(
            f"{str(folder)!r} holds images and sub-folders; give images alone, or images in class sub-folders."
        )
    if plain:
        return tuple(Picture(file, file.name, None) for file in plain)
    if not inside:
        raise ValueError(f"{str(folder)!r} holds no images ({', '.join(sorted(SUFFIXES))}): check the path.")
    files, _ = labelled_files(folder, forest.leaves)
    return tuple(Picture(file, f"{file.parent.name}/{file.name}", leaf) for file, leaf in files)


def batches(pictures: Sequence[Picture]) -> Iterator[tuple[list[Picture], Tensor]]:
    """Pictures of one size that follow each other, as float images (B, 3, H, W) in [0, 1]."""
    group: list[Picture] = []
    pixels: list[Tensor] = []
    for picture in pictures:
        image = read_image(picture.file)
        area = image.shape[1] * image.shape[2]
        full = len(pixels) == _MOST_IMAGES or (len(pixels) + 1) * area > _MOST_PIXELS
        if pixels and (full or image.shape != pixels[0].shape):
            yield group, torch.stack(pixels).float() / 255
            group, pixels = [], []
        group.append(picture)
        pixels.append(image)
    if pixels:
        yield group, torch.stack(pixels).float() / 255
