"""What an attacker may do: a norm ball around the input, inside the box of valid values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from robustree.attacks.noise import ImageNoise

Norm = Literal["linf", "l2"]
RADIUS_DRAW = 1 << 40  # apart from every counter of a run: the radius is independent of the direction


@dataclass(frozen=True, kw_only=True)
class Threat:
    """All x' with |x' - x| <= eps and low <= x' <= high, the norm taken over everything but the batch dimension.

    Pixels are in [0, 1], so eps is written 4/255. For inputs without a box (text features) use low=-inf, high=inf.

    Raises:
        ValueError: the box is empty, eps is outside (0, high - low] (linf) or (0, inf) (l2), or the norm is unknown.
    """

    eps: float
    norm: Norm = "linf"
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"norm is {self.norm!r}; linf and l2 are supported: choose one.")
        if not self.low < self.high:
            raise ValueError(f"the box is [{self.low:g}, {self.high:g}]; low must be below high: change one of them.")
        if not 0 < self.eps < math.inf or (self.norm == "linf" and self.eps > self.high - self.low):
            raise ValueError(f"eps is {self.eps:g}; pixels are in [0, 1], so write 4/255, not 4.")

    def project(self, inputs: Tensor, centre: Tensor) -> Tensor:
        """The nearest point of the ball around `centre`, then of the box; both of shape (B, ...)."""
        delta = inputs - centre
        if self.norm == "linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            delta = delta * per_image(self.eps / _length(delta).clamp(min=self.eps), delta)
        return (centre + delta).clamp(self.low, self.high)

    def random_start(self, centre: Tensor, noise: ImageNoise, run: Tensor | int) -> Tensor:
        """A point drawn uniformly from the ball (cube for linf), then clipped to the box; `run`, one or (B,), names the
        draw."""
        shape, dtype = centre.shape[1:], centre.dtype
        if self.norm == "linf":
            delta = (2 * noise.uniform(run, shape, dtype) - 1) * self.eps
        else:
            normal = noise.normal(run, shape, dtype)
            # The radius of a uniform draw from a ball of n dimensions is the n-th root of a uniform number; by exp and
            # log, because a CPU's pow rounds by the place in the batch.
            radius = (noise.uniform(torch.as_tensor(run) + RADIUS_DRAW, (), dtype).log() / centre[0].numel()).exp()
            delta = normal * per_image(self.eps * radius / _length(normal), normal)
        return self.project(centre + delta, centre)

    def ascent(self, gradient: Tensor) -> Tensor:
        """The unit step of steepest ascent: the sign (linf) or the normalised gradient (l2); zero where the gradient
        is zero."""
        if self.norm == "linf":
            return gradient.sign()
        # Scaled by its largest entry first: the square of a float32 gradient below 1e-22 is 0.
        tiny = torch.finfo(gradient.dtype).tiny
        scaled = gradient / per_image(gradient.abs().flatten(1).amax(1).clamp(min=tiny), gradient)
        return scaled / per_image(_length(scaled).clamp(min=tiny), scaled)

    def distance(self, inputs: Tensor, centre: Tensor) -> Tensor:
        """The size (B,) of the perturbation in this threat's norm."""
        delta = (inputs - centre).flatten(1)
        return delta.abs().amax(1) if self.norm == "linf" else delta.norm(dim=1)

    def contains(self, inputs: Tensor, centre: Tensor, *, tolerance: float = 1e-6) -> Tensor:
        """(B,) whether each input obeys the ball and the box; NaN never does."""
        flat = inputs.flatten(1)
        inside = (flat >= self.low - tolerance).all(1) & (flat <= self.high + tolerance).all(1)
        return inside & (self.distance(inputs, centre) <= self.eps + tolerance)


def parse_eps(text: str) -> float:
    """Read "4/255" or "0.0157" as pixels in [0, 1].

    Raises:
        ValueError: not a number, not positive, or above 1.
    """
    try:
        value = Fraction(text.replace(" ", ""))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"eps is {text!r}; write a fraction such as 4/255 or a number such as 0.0157.") from error
    if not 0 < value <= 1 or not float(value) > 0:
        raise ValueError(f"eps is {text}; pixels are in [0, 1], so write 4/255, not 4.")
    return float(value)


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """One number an image (B,), shaped so that it multiplies images (B, ...)."""
    return values.view(-1, *[1] * (images.ndim - 1))


def _length(delta: Tensor) -> Tensor:
    return delta.flatten(1).norm(dim=1)
