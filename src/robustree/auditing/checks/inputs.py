"""S2 to S4: what goes into the model, and what comes out of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robustree.attacks import AutoAttack, Expectation
from robustree.auditing.checks.case import Case, confined, percent, where
from robustree.auditing.checks.catalogue import PREPROCESSING, SATURATED, SHARE_OF_IMAGES, SPREAD
from robustree.auditing.checks.check import Check
from robustree.models.encoder import ImageEncoder, fit
from robustree.objectives import level_scores
from robustree.tree_model import Predictor, Scores


def normalisation(case: Case) -> Check:
    """S2: does the tower receive what its record prescribes, and is eps a number of pixels?"""
    threat, count = case.plan.threat, case.pixels[0].numel()
    radius = threat.eps if threat.norm == "linf" else threat.eps / math.sqrt(count)
    total = threat.eps * 255
    if total < 0.5:
        return case.found(
            "S2",
            "fail",
            f"eps {total:.3g}/255",
            f"eps is {total:.3g}/255, less than half a grey level, which no 8-bit image can show: write eps in units "
            "of [0, 1], such as 4/255, once.",
        )
    encoder = next((module for module in case.subject.model.modules() if isinstance(module, ImageEncoder)), None)
    if encoder is None:
        return case.found(
            "S2",
            "not applicable",
            f"eps {total:.3g}/255",
            "the model has no ImageEncoder, so nothing says what its tower should receive: make sure that "
            "normalisation happens once, inside the model.",
        )
    wrong = _wrong_normalisation(case, encoder)
    if wrong:
        return case.found("S2", "fail", wrong[0], wrong[1])
    draw = torch.rand(case.pixels.shape, generator=torch.Generator().manual_seed(0)).to(case.device)
    noisy = (case.pixels + threat.eps * (2 * draw - 1)).clamp(0, 1)
    difference = float((_received(case, encoder, noisy) - _prescribed(encoder, noisy)).abs().max())
    if difference > PREPROCESSING:
        return case.found(
            "S2",
            "flag",
            difference,
            f"the tower receives pixels that are off by {difference:.3g} from what its preprocessing prescribes: "
            "something changes them on the way; attack a deliberate defence with straight_through or Square.",
        )
    if radius > 0.25 and not confined(case.plan):
        return case.found(
            "S2",
            "flag",
            difference,
            f"eps is {total:.4g}/255 ({threat.norm}), which changes what a picture shows: claims stop at 16/255.",
        )
    return case.found(
        "S2",
        "pass",
        difference,
        f"the tower receives (x - mean) / std to within {difference:.1g}, and eps is {total:.3g}/255 ({threat.norm}).",
    )


def _received(case: Case, encoder: ImageEncoder, images: Tensor) -> Tensor:
    """What the tower is given for images."""
    seen: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen.append(kwargs["pixel_values"] if "pixel_values" in kwargs else args[0])

    hook = encoder.tower.register_forward_pre_hook(note, with_kwargs=True)
    try:
        case.scores(images)
    finally:
        hook.remove()
    return torch.cat(seen)


def _prescribed(encoder: ImageEncoder, images: Tensor) -> Tensor:
    record = encoder.preprocessing
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (record.mean, record.std))
    return (fit(images, record) - mean) / std


def _wrong_normalisation(case: Case, encoder: ImageEncoder) -> tuple[str, str] | None:
    """The mean and std that black and white images reveal, and a sentence, if the record says otherwise."""
    black = torch.zeros_like(case.pixels[:1])
    ends = _received(case, encoder, torch.cat([black, black + 1]))
    if len(ends) != 2:
        return (
            f"{len(ends)} towers' inputs",
            f"the tower is called {len(ends)} times for 2 images: give the plain model.",
        )
    low, high = ends.mean((2, 3)).double()
    std = 1 / (high - low)
    mean = -low * std
    record = encoder.preprocessing
    wanted_mean, wanted_std = (
        torch.tensor(v, dtype=torch.float64, device=low.device) for v in (record.mean, record.std)
    )
    if bool(((std / wanted_std - 1).abs() <= 0.01).all()) and bool(((mean - wanted_mean).abs() <= 0.01).all()):
        return None
    figure = f"mean {_three(mean)}, std {_three(std)}"
    return figure, (
        f"the tower's input is normalised with {figure}, but its record says mean {_three(wanted_mean)}, std "
        f"{_three(wanted_std)}: let the model normalise, once."
    )


def _three(values: Tensor) -> str:
    return "/".join(f"{value:.3g}" for value in values.tolist())


def determinism(case: Case) -> Check:
    """S3: do two forwards agree?"""
    once, again = (case.scores(case.pixels) for _ in range(2))
    first, second = once.nodes, again.nodes
    spread = (first.amax(1) - first.amin(1)).mean().clamp(min=torch.finfo(first.dtype).tiny)
    difference = float((first - second).abs().max() / spread)
    random = [name for name, module in case.subject.model.named_modules() if module.training and _acts(module)]
    modes = f" ({', '.join(random[:3])} in train mode)" if random else ""
    if not difference <= SPREAD:
        averaged = any(averages(attack.attack) for attack in case.plan.attacks)
        changed = sum(int((case.decisions(once, v) != case.decisions(again, v)).sum()) for v in case.levels)
        advice = (
            "scores are averages over few draws: report several seeds."
            if averaged
            else "call eval(), or, if the model is random on purpose, attack it with expectation over samples."
        )
        return case.found(
            "S3",
            "flag" if averaged else "fail",
            difference,
            f"two forwards of the same {len(first)} images differ by {difference:.2g} of the scores' spread and in "
            f"{changed} decisions{modes}: {advice}",
        )
    if random:
        return case.found(
            "S3",
            "flag",
            difference,
            f"{len(random)} modules are in train mode, {', '.join(random[:3])} among them: call eval().",
        )
    return case.found("S3", "pass", difference, f"two forwards differ by {difference:.1g} of the scores' spread.")


def _acts(module: nn.Module) -> bool:
    """Whether train mode matters: dropout that drops, or statistics of the batch."""
    drops = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
    return drops or getattr(module, "running_mean", None) is not None


def averages(attack: object) -> bool:
    if isinstance(attack, AutoAttack):
        return attack.version == "rand"
    inner = getattr(attack, "attack", None)
    return isinstance(attack, Expectation) or (inner is not None and averages(inner))


def logits(case: Case) -> Check:
    """S4: are the scores logits that a softmax does not saturate?"""
    nodes = case.clean.nodes
    broken = where(~nodes.isfinite().all(1))
    if len(broken):
        return case.found(
            "S4",
            "fail",
            None,
            f"the scores of {len(broken)} of {len(nodes)} images ({case.named(broken)}) are not finite: check the "
            "weights, and compute the scores in float32.",
        )
    for cut in case.forest.cuts():
        scores = case.clean.at(cut)
        if len(cut.nodes) > 1 and bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() < 1e-3).all()):
            return _probabilities(case, f"the scores at {cut.label} lie in [0, 1] and sum to 1")
    if bool((nodes >= 0).all()) and bool(((nodes.sum(1) - 1).abs() < 1e-3).all()):
        return _probabilities(case, "the scores of all nodes lie in [0, 1] and sum to 1")
    share, label = saturated(case, case.predict, case.every)
    head = case.subject.model.head
    if share > SHARE_OF_IMAGES:
        return case.found(
            "S4",
            "flag",
            share,
            f"at {label} the softmax of {percent(share, 1)} of the images is saturated (scale {head.scale:g}): a "
            "cross-entropy has no gradient there, so attack with the margin or the ratio too.",
        )
    return case.found(
        "S4",
        "pass",
        share,
        f"finite logits of scale {head.scale:g}, at most {percent(share, 1)} of the images saturated ({label}).",
    )


def _probabilities(case: Case, what: str) -> Check:
    return case.found("S4", "fail", "probabilities", f"{what}: give the logits before the softmax.")


def saturated(case: Case, predict: Predictor, index: Tensor) -> tuple[float, str]:
    """The largest share of images, over the levels, whose softmax is saturated, and where."""
    scores: Scores = case.scores(case.pixels[index], predict)
    shares = [
        (
            float((level_scores(scores, v.cut, v.readout).double().softmax(1).amax(1) > SATURATED).double().mean()),
            v.label,
        )
        for v in case.levels
    ]
    return max(shares)
