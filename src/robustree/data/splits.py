"""Which files of a copy belong to a split, and subsets that do not depend on the order in which files hold images."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

TRAINING, VALIDATION, TEST = ("train", "training"), ("validation", "valid", "val"), ("test",)
"""What copies call their splits."""


def audited_names(split: str) -> tuple[str, ...]:
    """Names of the images for audits, the one to look for first in front; `split` is what the record calls them."""
    return VALIDATION + TEST if split in VALIDATION else TEST + VALIDATION


def of_split(names: Sequence[str], wanted: Sequence[str], *, where: str) -> list[str]:
    """Those file or folder names ("train", "test-0.tar") that say the first of the `wanted` splits that any says; all
    of them where none says a split.

    Raises:
        ValueError: names say splits, but none of those wanted.
    """
    for split in wanted:
        if found := [name for name in names if _says(name, split)]:
            return found
    said = [name for name in names if any(_says(name, split) for split in TRAINING + VALIDATION + TEST)]
    if said:
        raise ValueError(
            f"{where!r} has {', '.join(said[:3])}, but nothing called {' or '.join(wanted)}: give the files themselves."
        )
    return list(names)


def _says(name: str, split: str) -> bool:
    return re.match(rf"{split}([-_.\d]|$)", name) is not None


def stratified(leaves: Tensor, count: int, *, seed: int = 0) -> Tensor:
    """Positions (count,) of a subset that covers the classes as evenly as `count` allows, in ascending order.

    Raises:
        ValueError: `count` is not between 1 and the number of images.
    """
    if not 1 <= count <= len(leaves):
        raise ValueError(f"{count} images were asked for; the split has {len(leaves)}: ask for 1 to {len(leaves)}.")
    order = torch.randperm(len(leaves), generator=torch.Generator().manual_seed(seed)).tolist()
    seen: dict[int, int] = {}
    rank = {}
    for position in order:
        leaf = int(leaves[position])
        rank[position] = seen[leaf] = seen.get(leaf, -1) + 1
    chosen = sorted(order, key=lambda position: rank[position])[:count]
    return torch.tensor(sorted(chosen))
