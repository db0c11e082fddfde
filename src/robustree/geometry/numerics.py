"""The floating-point rules that every space of this package obeys.

Public geometry runs on a precision island: autocast is switched off and floating tensors become float64,
because bfloat16 or TF32 distances between deep points are wrong in the first digit. `autocast(dtype=float32)`
would not do: on a CPU it leaves bfloat16 tensors as they are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import ParamSpec

import torch
from torch import Tensor

Parameters = ParamSpec("Parameters")

# Below this fraction of |left||right| a float64 Gram difference keeps fewer than about seven digits.
NEAR = 1e-8
# How many near pairs are recomputed at a time; bounds the scratch memory at CHUNK * D * 8 bytes.
CHUNK = 4096


def precision_island(function: Callable[Parameters, Tensor]) -> Callable[Parameters, Tensor]:
    """Run `function` on float64 copies of its floating tensors with autocast off.

    The result is float64 when an argument is float64, else float32: half and bfloat16 inputs give float32
    results. Raises ValueError when no argument is a floating-point tensor.
    """

    @functools.wraps(function)
    def on_the_island(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Tensor:
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.is_floating_point()]
        if not tensors:
            raise ValueError(f"{function.__name__} got no floating tensor, it takes float points; call .float() first.")
        result = torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32
        with torch.autocast(device_type=tensors[0].device.type, enabled=False):
            wide_args = [_widened(x) for x in args]
            wide_kwargs = {key: _widened(x) for key, x in kwargs.items()}
            return function(*wide_args, **wide_kwargs).to(result)  # type: ignore[arg-type]

    return on_the_island


def _widened(value: object) -> object:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.float64)
    return value


def checked_curvature(curvature: float) -> float:
    """Return `curvature` (the r of curvature -r), or raise ValueError unless it is finite and above 0."""
    if not (0.0 < curvature < math.inf):
        raise ValueError(
            f"curvature is {curvature}, it must be finite and above 0; pass r of the ball |x|^2 < 1/r, e.g. 1.0."
        )
    return curvature


def checked_pairs(points: Tensor, prototypes: Tensor) -> None:
    """Raise ValueError unless the shapes are (B, D) and (K, D)."""
    if points.ndim != 2 or prototypes.ndim != 2 or points.shape[1] != prototypes.shape[1]:
        raise ValueError(
            f"points and prototypes have shapes {tuple(points.shape)} and {tuple(prototypes.shape)}, "
            "they must be (B, D) and (K, D); flatten the batch dimensions."
        )


def checked_weights(points: Tensor, weights: Tensor) -> Tensor:
    """Return `weights` (m, n) in the dtype of `points` (n, D), or raise ValueError if they define no average.

    Weights are constants such as child counts: they are not negative, every row has a positive one, and they
    carry no gradient.
    """
    if points.ndim != 2 or weights.ndim != 2 or weights.shape[1] != points.shape[0]:
        raise ValueError(
            f"weights have shape {tuple(weights.shape)} and points {tuple(points.shape)}, they must be "
            "(m, n) and (n, D); give one weight per point in each row."
        )
    if weights.requires_grad:
        raise ValueError(
            "weights require a gradient, they must be constants; detach them (a midpoint differentiates "
            "its points only)."
        )
    weights = weights.to(points)
    if bool((weights < 0).any()):
        raise ValueError(f"weights go down to {weights.min().item():g}, they must be >= 0; use counts.")
    empty = (weights.sum(dim=1) <= 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"weights of row {empty[0]} are all zero, each row needs a positive weight; drop nodes without points."
        )
    return weights


def pairwise_square_gap(
    left: Tensor,
    right: Tensor,
    left_scale: Tensor,
    right_scale: Tensor,
    near_gap: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Return |right_scale_j left_i - left_scale_i right_j|^2 as (B, K), by one matmul.

    left (B, D), right (K, D), left_scale (B,), right_scale (K,), all float64. The matmul loses the digits of
    pairs that are much nearer than they are long; for those few, `near_gap(i, j)` gives the values of rows i
    and j (n,). The gradient is the matmul's for every pair.
    """
    left_square, right_square = left.square().sum(dim=1), right.square().sum(dim=1)
    rows = torch.cat([left_square[:, None], left_scale.square()[:, None], -2 * left_scale[:, None] * left], dim=1)
    columns = torch.cat([right_scale.square()[:, None], right_square[:, None], right_scale[:, None] * right], dim=1)
    gap = rows @ columns.T
    with torch.no_grad():
        length = torch.outer(left_square.sqrt() * left_scale, right_square.sqrt() * right_scale)
        for pairs in (gap < NEAR * length).nonzero().split(CHUNK):
            i, j = pairs.unbind(dim=1)
            gap[i, j] = near_gap(i, j)
    return gap


def guarded_sqrt(square: Tensor) -> Tensor:
    """Return the square root whose gradient at 0 is 0 instead of infinite."""
    return square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()
