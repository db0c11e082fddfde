"""Square Attack: random search that repaints square windows; it asks for no gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from robustree.attacks.noise import ImageNoise
from robustree.attacks.search import Search, State
from robustree.attacks.threat import Threat, per_image

RUN = 1 << 32
"""Draws that a run may take before the next run's begin."""
SHRINKS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After these proposals of 10 000 the window's area halves."""
TILES = 5
"""How many bumps the l2 start has along the shorter edge."""
TINY = 1e-12
"""Keeps the direction of a window that was never painted at zero."""


@dataclass(frozen=True, kw_only=True)
class Square(Search):
    """x <- proposal wherever it raises the objective (Andriushchenko et al. 2020, algorithm 1), on images (B, C, H, W).

    A proposal repaints one square window of the perturbation, at a random place of the image. linf: with -eps or eps,
    one sign a channel (algorithm 2), from a start of vertical stripes. l2: with its old content plus a random bump,
    and with the length that a second window of this size gives up (algorithm 3), from a start of bumps everywhere.

    `queries` proposals a run after the start; the window covers the share `p_init` of the image at first and shrinks
    after fixed numbers of proposals, or, with `rescale_schedule`, after fixed shares of `queries`. The paper's
    objective is the margin.

    Raises:
        ValueError: the images have no height and width.
    """

    queries: int = 5000
    p_init: float = 0.8
    rescale_schedule: bool = False

    gradients: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.queries < 1 or not 0 < self.p_init <= 1:
            raise ValueError(
                f"Square has queries {self.queries} and p_init {self.p_init}: queries start at 1 and 0 < p_init <= 1."
            )
        if not self.best:
            raise ValueError("Square has best=False; its last proposal means nothing by itself: set best=True.")

    @property
    def name(self) -> str:
        aimed = f"-t{self.targets}" if self.targets else ""
        return f"square{aimed}-{self.queries}" + (f"x{self.restarts}" if self.restarts > 1 else "")

    @property
    def evaluations(self) -> int:
        return self.queries + 1

    def begin(self, images: Tensor, threat: Threat, noise: ImageNoise, run: Tensor) -> State:
        if images.ndim != 4:
            raise ValueError(f"Square paints windows of images (B, C, H, W); these have the shape {(*images.shape,)}.")
        start = _stripes if threat.norm == "linf" else _bumps
        delta = start(images, noise, run * RUN)
        x = (images + threat.eps * delta).clamp(threat.low, threat.high)
        return {
            "x": x,
            "centre": images,
            "best": x,
            "best_value": torch.full((len(images),), -torch.inf, dtype=images.dtype, device=images.device),
            "seeds": noise.seeds,
            "run": run,
            "looked": torch.zeros_like(run),
        }

    def advance(self, state: State, values: Tensor, gradient: Tensor, achieved: Tensor, threat: Threat) -> State:
        rises = values > state["best_value"]
        best = state["x"].where(per_image(rises, state["x"]), state["best"])
        plan = _plan(self, threat.norm == "l2", *best.shape[2:], best.dtype, best.device)
        noise, draw = ImageNoise(state["seeds"]), state["run"] * RUN + 1 + state["looked"]
        propose = _repainted if threat.norm == "linf" else _refilled
        return state | {
            "x": propose(best, state["centre"], plan, plan.size[state["looked"]], noise, draw, threat),
            "best": best,
            "best_value": values.where(rises, state["best_value"]),
            "looked": state["looked"] + 1,
        }


@dataclass(frozen=True, eq=False)
class _Plan:
    """The windows of a run: `size` of each proposal, an index into `sides` and `bumps` (sizes, side, side)."""

    size: Tensor
    sides: Tensor
    bumps: Tensor


@lru_cache(maxsize=64)
def _plan(rule: Square, l2: bool, height: int, width: int, dtype: torch.dtype, device: torch.device) -> _Plan:
    of_proposal: list[int] = []
    for number in range(rule.queries + 1):
        at = number * 10_000 // rule.queries if rule.rescale_schedule else number
        side = round(math.sqrt(rule.p_init / 2 ** sum(at > edge for edge in SHRINKS) * height * width))
        of_proposal.append(min(max(side, 3) | 1 if l2 else max(side, 1), height, width))
    sides = sorted(set(of_proposal))
    bumps = torch.zeros(len(sides), sides[-1], sides[-1], dtype=dtype)
    for index, side in enumerate(sides):
        bumps[index, :side, :side] = _bump(side)
    size = torch.tensor([sides.index(side) for side in of_proposal], device=device)
    return _Plan(size, torch.tensor(sides, device=device), bumps.to(device))


def _bump(side: int) -> Tensor:
    """A hill above a valley of the same length, (side, side), with a norm of 1."""
    upper = side // 2
    bump = torch.zeros(side, side, dtype=torch.float64)
    for first, last, sign in ((0, upper, 1.0), (upper, side, -1.0)):
        rows = (torch.arange(first, last) - first - (last - first) // 2).abs()
        columns = (torch.arange(side) - side // 2).abs()
        ring = torch.maximum(rows[:, None], columns)  # number of the square ring around the middle
        heights = torch.arange(side // 2 + 1, 0, -1, dtype=torch.float64).square().reciprocal().cumsum(0).flip(0)
        half = heights[ring]
        bump[first:last] = sign * half / half.norm()
    return bump / bump.norm()


def _stripes(images: Tensor, noise: ImageNoise, draw: Tensor) -> Tensor:
    """A random sign for each channel and column, in every row."""
    channels, _, width = images.shape[1:]
    return _signs(noise.uniform(draw, (channels, 1, width), images.dtype)).expand_as(images)


def _bumps(images: Tensor, noise: ImageNoise, draw: Tensor) -> Tensor:
    """Bumps with random signs and turns on a grid, scaled to a norm of 1."""
    channels, height, width = images.shape[1:]
    side = max(1, min(height, width) // TILES)
    down, across = height // side, width // side
    drawn = noise.uniform(draw, (down, across, 1 + channels), images.dtype)
    bump = _bump(side).to(images)
    turned = torch.where((drawn[..., :1, None] > 0.5), bump.T, bump)  # (B, down, across, side, side)
    signed = turned[:, :, :, None] * _signs(drawn[..., 1:])[..., None, None]
    grid = signed.permute(0, 3, 1, 4, 2, 5).reshape(len(images), channels, down * side, across * side)
    delta = torch.zeros_like(images)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    delta[:, :, top : top + down * side, left : left + across * side] = grid
    return delta / per_image(delta.flatten(1).norm(dim=1) + TINY, delta)


def _repainted(
    best: Tensor, centre: Tensor, plan: _Plan, size: Tensor, noise: ImageNoise, draw: Tensor, threat: Threat
) -> Tensor:
    drawn = noise.uniform(draw, (2 + best.shape[1],), best.dtype)
    window = _Window(best, drawn[:, :2], plan.sides[size])
    colour = _signs(drawn[:, 2:])[..., None, None]
    return torch.where(window.inside, (centre + threat.eps * colour).clamp(threat.low, threat.high), best)


def _refilled(
    best: Tensor, centre: Tensor, plan: _Plan, size: Tensor, noise: ImageNoise, draw: Tensor, threat: Threat
) -> Tensor:
    drawn = noise.uniform(draw, (5 + best.shape[1],), best.dtype)
    first, second = (_Window(best, place, plan.sides[size]) for place in (drawn[:, :2], drawn[:, 2:4]))
    delta = best - centre
    spare = (threat.eps**2 - delta.square().flatten(1).sum(1)).clamp(min=0) / best.shape[1]
    freed = (delta * (first.inside | second.inside)).square().sum((2, 3), keepdim=True)
    old = delta * first.inside
    bump = first.filled(plan.bumps[size], turned=drawn[:, 4] > 0.5) * _signs(drawn[:, 5:])[..., None, None]
    new = bump + old / (TINY + _norms(old))
    new = new / (TINY + _norms(new)) * (per_image(spare, new) + freed).sqrt()
    delta = torch.where(first.inside, new, delta.masked_fill(second.inside, 0))
    length = per_image(delta.flatten(1).norm(dim=1) + TINY, delta)
    return (centre + delta / length * threat.eps).clamp(threat.low, threat.high)


class _Window:
    """A square (B, 1, H, W) of each image; `drawn` (B, 2) from [0, 1) says where, and every place is as likely."""

    def __init__(self, images: Tensor, drawn: Tensor, side: Tensor) -> None:
        height, width = images.shape[2:]
        self.rows = self._offsets(height, drawn[:, 0], side)[:, None, :, None]
        self.columns = self._offsets(width, drawn[:, 1], side)[:, None, None, :]
        side = per_image(side, images)
        self.inside = (self.rows >= 0) & (self.rows < side) & (self.columns >= 0) & (self.columns < side)

    @staticmethod
    def _offsets(length: int, drawn: Tensor, side: Tensor) -> Tensor:
        start = (drawn * (length - side + 1)).long()
        return torch.arange(length, device=drawn.device) - start[:, None]

    def filled(self, content: Tensor, turned: Tensor) -> Tensor:
        """Each image's content (B, side, side), transposed where `turned`, inside its window and 0 elsewhere."""
        rows, columns = (offset.clamp(0, content.shape[1] - 1) for offset in (self.rows, self.columns))
        rows, columns = torch.broadcast_tensors(rows, columns)
        turned = per_image(turned, rows)
        image = per_image(torch.arange(len(content), device=content.device), rows)
        return content[image, columns.where(turned, rows), rows.where(turned, columns)] * self.inside


def _signs(drawn: Tensor) -> Tensor:
    return torch.where(drawn < 0.5, -1.0, 1.0).to(drawn.dtype)


def _norms(delta: Tensor) -> Tensor:
    """The length (B, C, 1, 1) of each channel."""
    return delta.square().sum((2, 3), keepdim=True).sqrt()
