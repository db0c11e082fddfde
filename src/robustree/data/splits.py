"""Subsets that do not depend on the order in which files hold images."""

from __future__ import annotations

import torch
from torch import Tensor


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
