"""Labelled images as files hold them, still encoded: what every reader returns, and all that is kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from robustree.data.splits import of_split

Read = Callable[[int], bytes]


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Labels `leaves` (N,) and unique names `ids` of N images; `read(i)` returns the bytes of the i-th image file.

    `where` says for an error message what was read. Labels and names are in memory, images are not."""

    where: str
    ids: tuple[str, ...]
    leaves: Tensor
    read: Read

    def take(self, index: Tensor) -> EncodedImages:
        """The images at `index` (M,), in that order."""
        positions = index.tolist()
        return EncodedImages(
            self.where,
            tuple(self.ids[position] for position in positions),
            self.leaves[index],
            lambda position: self.read(positions[position]),
        )


class Scanned(NamedTuple):
    """What one file of images holds: `keys` and classes `leaves` (N,), and two numbers an image, `places` (N, 2), by
    which its format finds it again."""

    keys: tuple[str, ...]
    leaves: Tensor
    places: Tensor


def joined(where: str, parts: Sequence[EncodedImages]) -> EncodedImages:
    """Several files as one set, one after the other.

    Raises:
        ValueError: there is no image in any of them, or two have one name.
    """
    places = [(part, position) for part in parts for position in range(len(part.ids))]
    if not places:
        raise ValueError(f"{where!r} holds no images: check the path.")
    ids = tuple(part.ids[position] for part, position in places)
    if len(set(ids)) < len(ids):
        double = next(name for name in ids if ids.count(name) > 1)
        raise ValueError(f"{where!r} holds two images called {double!r}: give every image its own name.")

    def read(position: int) -> bytes:
        part, inside = places[position]
        return part.read(inside)

    return EncodedImages(where, ids, torch.cat([part.leaves for part in parts]), read)


def class_key(name: str) -> str:
    """Class names match whatever their case, spaces, hyphens and underscores."""
    return name.replace("_", " ").replace("-", " ").strip().casefold()


def leaves_of_labels(
    labels: Sequence[int | str], classes: Sequence[str], *, where: str, names: Mapping[int, str] | None = None
) -> Tensor:
    """The positions (N,) in `classes` of labels that are numbers or class names.

    `names` says what a file calls its numbers: where all these names are classes, numbers go by name; where some are
    spelt otherwise, numbers count the classes, and the names that do match must stand at their own place.

    Raises:
        ValueError: a label is no class, or names are neither the classes nor in their order.
    """
    keys = {class_key(name): position for position, name in enumerate(classes)}
    given = {number: keys.get(class_key(name)) for number, name in (names or {}).items()}
    by_name = all(leaf is not None for leaf in given.values())
    if not by_name:
        moved = [number for number, leaf in given.items() if leaf not in (None, number)]
        if moved or len(given) != len(classes):
            strange = next(name for number, name in (names or {}).items() if given[number] is None)
            raise ValueError(
                f"{where!r} calls a class {strange!r}, which is none of the {len(classes)} classes, and its other "
                "classes are not in their order: rename the class."
            )
    found = []
    for label in labels:
        number = int(label) if isinstance(label, int) or label.strip().isdecimal() else None
        leaf = keys.get(class_key(label)) if isinstance(label, str) else None
        if leaf is None and number is not None:
            leaf = given.get(number, number) if by_name else number
        if leaf is None or not 0 <= leaf < len(classes):
            raise ValueError(
                f"{where!r} has the label {label!r}; it is none of the {len(classes)} classes "
                f"({', '.join(list(classes)[:3])}, ...), and their numbers are 0 to {len(classes) - 1}."
            )
        found.append(leaf)
    return torch.tensor(found, dtype=torch.int64)


def files_below(path: Path, suffix: str, splits: Sequence[str]) -> tuple[Path, ...]:
    """The file itself, or the files directly in a folder, by name: those of the first of the `splits` that there is, or
    all where their names say no split.

    Raises:
        ValueError: there is none.
    """
    if path.is_file():
        return (path,)
    names = sorted(file.name for file in path.glob(f"*{suffix}"))
    if not names:
        raise ValueError(f"{str(path)!r} holds no {suffix} files: check the path.")
    return tuple(path / name for name in of_split(names, splits, where=str(path)))
