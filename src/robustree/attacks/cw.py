"""Carlini and Wagner's attack: the least change that turns a decision, with the price of failure found by bisection."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustree.attacks.noise import ImageNoise
from robustree.attacks.search import Search, State
from robustree.attacks.threat import Threat, per_image

DECAY, SQUARED_DECAY, TINY = 0.9, 0.999, 1e-8
"""Adam's own constants (Kingma & Ba 2015, algorithm 1)."""
FASTEST = 0.2
"""The highest rate of a pixel in w; near the ends of the box a change of 1 in w multiplies the pixel's distance by
e^2."""
GROWTH = 10.0
"""By how much the price rises as long as no price has been high enough."""


@dataclass(frozen=True, kw_only=True)
class CW(Search):
    """min_w |x - centre|^2 + constant * max(confidence - objective(x), 0) with x = low + (high - low)(tanh(w) + 1) / 2,
    by Adam (Carlini & Wagner 2017, sections V.B and VI.A); the objective is a margin.

    l2: a run is `search_steps` searches of `steps` steps, each from the run's start. The constant begins at `constant`,
    grows tenfold until a search turns the decision, then is bisected. All iterates that lie inside the threat count, so
    the attack works where the least change is shorter than eps. `lr` is in units of eps: every pixel has its own rate
    in w, such that a first step of all pixels has length lr * eps, and starts that far from the ends of the box at
    least. (The paper's one rate for all pixels, 0.01 in w, steps over short changes of large images and leaves black
    and white pixels where they are for thousands of steps.)

    linf: what the field calls CW there, sign ascent on min(objective, confidence) as in `PGD`, `steps` steps of
    `step_size` * eps; an iterate beyond `confidence` stays where it is.

    The first restart starts at the image, every later one at a random point of the threat.

    Raises:
        ValueError: at the first image, if the threat is an l2 ball without a finite box.
    """

    steps: int = 100
    search_steps: int = 9
    lr: float = 0.1
    confidence: float = 0.0
    constant: float = 1e-3
    step_size: float = 0.25

    strays: ClassVar[bool] = True
    startable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.search_steps < 1 or not 0 <= self.confidence < math.inf:
            raise ValueError(
                f"CW has steps {self.steps}, search_steps {self.search_steps}, confidence {self.confidence}: the first "
                "two start at 1, confidence at 0, and all are finite."
            )
        if not all(0 < size < math.inf for size in (self.lr, self.constant, self.step_size)):
            raise ValueError(
                f"CW has lr {self.lr}, constant {self.constant}, step_size {self.step_size}; all of them are positive "
                "and finite."
            )

    @property
    def name(self) -> str:
        aimed = f"-t{self.targets}" if self.targets else ""
        return f"cw{aimed}-{self.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "")

    @property
    def evaluations(self) -> int:
        return self.search_steps * (self.steps + 1)

    def begin(self, images: Tensor, threat: Threat, noise: ImageNoise, run: Tensor) -> State:
        first = per_image(run < max(1, self.targets), images)
        x = torch.where(first, images, threat.random_start(images, noise, run))
        counter = torch.zeros(len(images), dtype=torch.long, device=images.device)
        done = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        state = {"x": x, "centre": images, "looked": counter, "done": done}
        if threat.norm == "linf":
            return state
        if not math.isfinite(threat.high - threat.low):
            raise ValueError(
                f"CW's l2 attack was given the box [{threat.low}, {threat.high}]; its change of variables needs a "
                "finite one: set low and high."
            )
        reach = (threat.high - threat.low) / 2
        step = self.lr * threat.eps / math.sqrt(x[0].numel())
        inset = min(step, reach / 2)
        tanh = (x.clamp(threat.low + inset, threat.high - inset) - threat.low) / reach - 1
        w = (tanh.log1p() - (-tanh).log1p()) / 2  # a CPU's atanh rounds by the place in the batch, and so does its pow
        price = torch.full((len(images),), self.constant, dtype=images.dtype, device=images.device)
        return {
            **state,
            "x": _pixels(w, threat),
            "start": w,
            "w": w,
            "rate": (step / (reach * (1 - tanh.square()))).clamp(max=FASTEST),
            "mean": torch.zeros_like(w),
            "square": torch.zeros_like(w),
            "turned": done,
            "price": price,
            "lower": torch.zeros_like(price),
            "upper": torch.full_like(price, torch.inf),
        }

    def advance(self, state: State, values: Tensor, gradient: Tensor, achieved: Tensor, threat: Threat) -> State:
        looked = state["looked"] + 1
        if threat.norm == "linf":
            done = looked > self.steps
            climbs = per_image((values <= self.confidence) & ~done, gradient)
            step = self.step_size * threat.eps * threat.ascent(gradient.where(climbs, 0.0))
            moved = threat.project(state["x"] + step, state["centre"])
            # An image that has ended may be looked at a few times more: it must not move on.
            x = moved.where(climbs, state["x"])
            return {**state, "x": x, "looked": looked, "done": done}
        turned = state["turned"] | (achieved & (values >= self.confidence))
        adam = self._adam(state, values, gradient, threat)
        bracket = self._bracket(state, turned)
        over = looked > self.steps  # the search is over: the next one begins anew
        wide = per_image(over, gradient)
        w = state["start"].where(wide, adam["w"])
        return {
            "x": _pixels(w, threat),
            "centre": state["centre"],
            "start": state["start"],
            "w": w,
            "rate": state["rate"],
            "mean": adam["mean"].masked_fill(wide, 0),
            "square": adam["square"].masked_fill(wide, 0),
            "looked": looked.masked_fill(over, 0),
            "turned": turned & ~over,
            "done": state["done"],
            **{key: value.where(over, state[key]) for key, value in bracket.items()},
        }

    def _adam(self, state: State, values: Tensor, gradient: Tensor, threat: Threat) -> State:
        """One step down the penalised distance, in the variable w."""
        x, w = state["x"], state["w"]
        price = torch.where(values < self.confidence, state["price"], 0)
        slope = (threat.high - threat.low) / 2 * (1 - w.tanh().square())
        descent = (2 * (x - state["centre"]) - per_image(price, x) * gradient) * slope
        mean = DECAY * state["mean"] + (1 - DECAY) * descent
        square = SQUARED_DECAY * state["square"] + (1 - SQUARED_DECAY) * descent.square()
        count = per_image(state["looked"] + 1, x).to(x.dtype)
        mean_weight, square_weight = (1 - (count * math.log(decay)).exp() for decay in (DECAY, SQUARED_DECAY))
        ahead = w - state["rate"] * mean / mean_weight / ((square / square_weight).sqrt() + TINY)
        return {"w": ahead, "mean": mean, "square": square}

    def _bracket(self, state: State, turned: Tensor) -> State:
        """The price of the next search, and the bounds it lies between."""
        price = state["price"]
        lower, upper = price.where(~turned, state["lower"]), price.where(turned, state["upper"])
        grown, middle = price * GROWTH, (lower + upper) / 2
        return {"price": torch.where(upper.isinf(), grown, middle), "lower": lower, "upper": upper}


def _pixels(w: Tensor, threat: Threat) -> Tensor:
    return threat.low + (threat.high - threat.low) * (w.tanh() + 1) / 2
