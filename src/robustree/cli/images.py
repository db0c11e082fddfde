"""Images of `robustree attack` and `robustree classify`: at their own size, labelled or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robustree.data import read_image
from robustree.data.readers.folder import SUFFIXES, image_files, labelled_files
from robustree.taxonomy import Forest

_MOST_IMAGES, _MOST_PIXELS = 32, 2_000_000  # of one batch


@dataclass(frozen=True)
class Picture:
    """An image file, its name in results, and its class if a folder says so."""

    file: Path
    name: str
    leaf: int | None


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
