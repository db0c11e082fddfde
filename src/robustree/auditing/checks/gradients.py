"""S5, S15, S16 and S22: whether gradients are there, true, and seen to be missing where they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustree.attacks import AutoAttack
from robustree.auditing.checks.case import Case, Level, percent
from robustree.auditing.checks.catalogue import SHARE_OF_IMAGES, SLOPE, UNSTABLE
from robustree.auditing.checks.check import Check
from robustree.auditing.checks.inputs import saturated
from robustree.auditing.plan import level_objective
from robustree.objectives import Loss
from robustree.tree_model import Predictor, Scores

NUDGE = 0.25 / 255
"""A change of a pixel for which a network is nearly linear, and float32 still exact enough."""
CONTROL_IMAGES = 16
SMOOTHNESS_DRAWS = 5


@dataclass(frozen=True)
class Gap:
    """Where gradients are missing: shares of images at one level under one loss."""

    level: str
    loss: Loss
    zero: float
    broken: float


def gradient(case: Case, predict: Predictor, level: Level, loss: Loss, images: Tensor, index: Tensor) -> Tensor:
    """d loss / d image (M, ...), a batch at a time."""
    parts = []
    for part in torch.arange(len(index), device=case.device).split(case.plan.batch_size):
        x = images[part].detach().requires_grad_(True)
        objective = level_objective(case.forest, case.leaves[index[part]], level.label, loss)
        with torch.enable_grad():
            parts.append(torch.autograd.grad(objective(predict(x)).sum(), x)[0])
    return torch.cat(parts)


def interrupted(case: Case, predict: Predictor) -> str | None:
    """Why no gradient reaches an image; None if one does."""
    level = case.levels[0]
    x = case.pixels[:1].detach().clone().requires_grad_(True)
    objective = level_objective(case.forest, case.leaves[:1], level.label)
    with torch.enable_grad():
        try:
            value = objective(predict(x)).sum()
        except RuntimeError as error:  # Tensor.numpy() refuses images that need gradients, for one
            return f"the model refuses images that need gradients ({str(error).splitlines()[0]})"
        if not value.requires_grad:
            return "the scores do not depend on the image through any graph"
        (slope,) = torch.autograd.grad(value, x, allow_unused=True)
    return "the graph of the scores does not contain the image" if slope is None else None


def gaps(case: Case, predict: Predictor, index: Tensor) -> list[Gap]:
    """Missing gradients of the margin and of the cross-entropy at random points of the threat."""
    rows = []
    for level in case.levels:
        noise = case.noise("gradient", level, index)
        x = case.plan.threat.random_start(case.pixels[index], noise, 0)
        for loss in ("margin", "cross_entropy"):
            flat = gradient(case, predict, level, loss, x, index).flatten(1)
            zero = float((flat == 0).all(1).double().mean())
            rows.append(Gap(level.label, loss, zero, float((~flat.isfinite()).any(1).double().mean())))
    return rows


def presence(case: Case) -> Check:
    """S5: does every image have a gradient?"""
    rows = gaps(case, case.predict, case.every)
    used = _uses_cross_entropy(case)
    broken = max(rows, key=lambda gap: gap.broken)
    margin = max((gap for gap in rows if gap.loss == "margin"), key=lambda gap: gap.zero)
    entropy = max((gap for gap in rows if gap.loss == "cross_entropy"), key=lambda gap: gap.zero)
    if broken.broken > 0:
        return case.found(
            "S5",
            "fail",
            broken.broken,
            f"{percent(broken.broken, 1)} of the images have a {broken.loss} gradient at {broken.level} that is not "
            "finite: look for divisions and roots of zero; setting such gradients to zero would hide attacks.",
        )
    if margin.zero > SHARE_OF_IMAGES:
        return case.found(
            "S5",
            "fail",
            margin.zero,
            f"{percent(margin.zero, 1)} of the images have a margin gradient of zero at {margin.level}: something "
            "rounds or cuts the pixels; attack with straight_through, or with Square.",
        )
    if entropy.zero > SHARE_OF_IMAGES and used:
        return case.found(
            "S5",
            "flag",
            entropy.zero,
            f"{percent(entropy.zero, 1)} of the images have a cross-entropy gradient of zero at {entropy.level}, and "
            "the plan attacks with it: trust the margin, or lower the logit scale for the attack.",
        )
    unused = "" if used else ", which the plan does not use"
    return case.found(
        "S5",
        "pass",
        margin.zero,
        f"gradients of zero: margin {percent(margin.zero, 1)}, cross-entropy {percent(entropy.zero, 1)} of the images"
        f"{unused}.",
    )


def _uses_cross_entropy(case: Case) -> bool:
    plan = case.plan
    direct = any(part.loss == "cross_entropy" or isinstance(part.attack, AutoAttack) for part in plan.attacks)
    return direct or plan.all_levels is not None


def truth(case: Case) -> Check:
    """S16: does the graph reach the image, and does a gradient say how the margin changes?"""
    reason = interrupted(case, case.predict)
    if reason:
        return case.found(
            "S16",
            "fail",
            None,
            f"{reason}: remove detach(), no_grad() and conversions to NumPy or PIL, or attack with Square only.",
        )
    ratios = torch.cat([_kept_promises(case, level) for level in case.levels])
    if len(ratios) == 0:
        return case.found("S16", "not applicable", None, "all gradients are zero (S5).")
    middle = float(ratios.median())
    if not 1 / SLOPE <= middle <= SLOPE:
        return case.found(
            "S16",
            "flag",
            middle,
            f"a small step along the gradient changes the margin {middle:.2g} times as much as it promises (median of "
            f"{len(ratios)}): a backward pass was replaced or part of the graph is cut; run Square as well.",
        )
    return case.found("S16", "pass", middle, f"small steps change the margin {middle:.2f} times as much as promised.")


def _kept_promises(case: Case, level: Level) -> Tensor:
    """(M,) the change of the margin along the sign of its gradient, relative to what the gradient says."""
    x = case.pixels.clamp(NUDGE, 1 - NUDGE)
    slope = gradient(case, case.predict, level, "margin", x, case.every)
    way = NUDGE * slope.sign()
    up, down = (case.margin(case.scores(x + sign * way), level).double() for sign in (1, -1))
    promised = 2 * NUDGE * slope.abs().flatten(1).sum(1).double()
    usable = promised.isfinite() & (promised > 0)
    return (up - down)[usable] / promised[usable]


def smoothness(case: Case) -> Check:
    """S15: how much does noise move the margin?"""
    rows = []
    for level in case.levels:
        noise = case.noise("smoothness", level, case.every)
        before = case.margin(case.clean, level)
        draws = [case.plan.threat.random_start(case.pixels, noise, draw) for draw in range(SMOOTHNESS_DRAWS)]
        moved = torch.stack([(case.margin(case.scores(x), level) - before).abs() for x in draws])
        rows.append((float(moved.mean() / before.abs().mean().clamp(min=1e-12)), level.label))
    change, label = max(rows)
    if change > UNSTABLE:
        return case.found(
            "S15",
            "flag",
            change,
            f"noise within eps changes the margin at {label} by {percent(change, 1)} of its size: gradients at one "
            "point say little; attack with expectation over samples and with Square.",
        )
    return case.found("S15", "pass", change, f"noise changes the margin by at most {percent(change, 1)} ({label}).")


def controls(case: Case) -> Check:
    """S22: do the gradient checks notice copies of this model that are broken on purpose?"""
    index, model = case.every[:CONTROL_IMAGES], case.predict

    def quantised(x: Tensor) -> Scores:
        return model((x * 8).round() / 8)

    def scaled(x: Tensor) -> Scores:
        scores = model(x)
        return scores._replace(nodes=scores.nodes * 100)

    def detached(x: Tensor) -> Scores:
        return model(x.detach())

    def no_gradient(predict: Predictor, loss: Loss) -> bool:
        rows = [gap for gap in gaps(case, predict, index) if gap.loss == loss]
        return any(gap.zero > SHARE_OF_IMAGES or gap.broken > 0 for gap in rows)

    tests: dict[str, Callable[[], bool]] = {
        "quantised pixels": lambda: no_gradient(quantised, "margin"),
        "logits times 100": lambda: (
            saturated(case, scaled, index)[0] > SHARE_OF_IMAGES or no_gradient(scaled, "cross_entropy")
        ),
        "a detached image": lambda: interrupted(case, detached) is not None,
    }
    missed = [name for name, noticed in tests.items() if not noticed()]
    if missed:
        return case.found(
            "S22",
            "fail",
            len(missed),
            f"the checks pass a copy of the model with {', '.join(missed)}: they are blind to such masking here, so "
            "compare with Square before trusting them (logits that differ by less than 0.1 need a larger scale).",
        )
    return case.found("S22", "pass", 0, f"{', '.join(tests)}: each broken copy of the model is noticed.")
