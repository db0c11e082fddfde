"""S11, S12 and S27: searches that should not do better than the gradient, and one in low precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from robustree.attacks import APGD, Square
from robustree.auditing.checks.attacked import Attacked
from robustree.auditing.checks.case import Case, listed, where
from robustree.auditing.checks.catalogue import BLACK_BOX, MASKED, PRECISION, allowed
from robustree.auditing.checks.check import Check
from robustree.tree_model import Scores

Others = Mapping[str, Sequence[Attacked]]
"""The attacked levels of every subject, by name."""


def black_box(case: Case, levels: Sequence[Attacked], others: Others) -> Check:
    """S11: do queries, or images made for other models, break what gradients left?"""
    n, rows = len(case.leaves), []
    square = Square(queries=case.budget.queries, rescale_schedule=True, stop=True)
    for number, at in enumerate(levels):
        index = where(at.standing & at.reference)
        broken: dict[int, str] = {}
        made = case.attack(square, at.level, index, key="black box")
        for image in index[case.falls(made, at.level, index)].tolist():
            broken[image] = square.name
        for name, theirs in others.items():
            for transferred in theirs[number].made if name != case.name else ():
                images = transferred.images[index].to(case.device)
                for image in index[case.falls(images, at.level, index)].tolist():
                    broken.setdefault(image, f"images made for {name}")
        rows.append((len(broken), len(index), at.level.label, broken))
    count, survivors, label, broken = max(rows, key=lambda row: row[0])
    foreign = ", or images made for the other models," if len(others) > 1 else ""
    if count > BLACK_BOX * n:
        how = listed([f"{case.images.ids[image]} by {name}" for image, name in broken.items()])
        masked = count > MASKED * n and count > 1
        return case.found(
            "S11",
            "fail" if masked else "flag",
            count / n,
            f"{count} of the {survivors} images that stood against gradients at {label} fall otherwise ({how}): "
            + (
                "gradients are masked, so robust accuracies are too high; use AutoAttack and an adaptive attack."
                if masked
                else "use more steps, restarts or AutoAttack."
            ),
        )
    return case.found(
        "S11",
        "pass",
        count / n,
        f"{square.name}{foreign} breaks {count} of the {survivors} survivors at {label}.",
    )


def noise(case: Case, levels: Sequence[Attacked]) -> Check:
    """S12: does random noise break what the plan's attacks (without any, the checks' own) left?"""
    n, threat = len(case.leaves), case.plan.threat
    standing = torch.stack([at.standing if at.made else at.reference for at in levels])
    index = where(standing.any(0))
    broken = torch.zeros(len(levels), len(index), dtype=torch.bool, device=case.device)
    if len(index):
        source, pixels = case.noise("noise", case.levels[0], index), case.pixels[index]
        for draw in range(case.budget.draws):
            # At the edge of the threat, where noise does the most harm.
            normal = source.normal(draw, pixels.shape[1:], pixels.dtype)
            scores = case.scores(threat.project(pixels + threat.eps * threat.ascent(normal), pixels))
            for number, at in enumerate(levels):
                broken[number] |= standing[number, index] & ~case.right(scores, at.level, index)
    number = int(broken.sum(1).argmax())
    count, label = int(broken[number].sum()), levels[number].level.label
    survivors = int(standing[number].sum())
    if count > 0:
        masked = count > MASKED * n and count > 1
        return case.found(
            "S12",
            "fail" if masked else "flag",
            count / n,
            f"{case.budget.draws} draws of noise break {count} of the {survivors} survivors at {label} "
            f"({case.named(index[broken[number]])}): the attacks are weaker than chance there; see S5, S8 and S16.",
        )
    return case.found(
        "S12", "pass", 0.0, f"{case.budget.draws} draws of noise break none of the {survivors} survivors."
    )


def precision(case: Case, levels: Sequence[Attacked]) -> Check:
    """S27: are scores exact, and would a bfloat16 search find the same images?"""
    low = _low_scores(case.clean.nodes)
    if low:
        return case.found(
            "S27",
            "fail",
            low,
            f"the scores are {low} numbers: near decisions are ties and small gradients vanish; compute the head, the "
            "scores and the loss in float32.",
        )
    kind = case.device.type
    if torch.is_autocast_enabled(kind):
        return case.found("S27", "fail", "autocast", "the audit runs under autocast: leave its block.")

    def searched(x: Tensor) -> Scores:
        with torch.autocast(kind, dtype=torch.bfloat16):
            return case.predict(x)

    n, rows = len(case.leaves), []
    for at in levels:
        index = where(at.right)
        attack = APGD(steps=case.budget.steps, stop=True)
        made = case.attack(attack, at.level, index, key="reference", predict=searched)
        falls = case.falls(made, at.level, index)
        rows.append(
            (int((falls == at.reference[index]).sum()), int((~falls & ~at.reference[index]).sum()), at.level.label)
        )
    differing, missed, label = max(rows)
    tf32 = kind == "cuda" and torch.get_float32_matmul_precision() != "highest"
    if tf32 or differing > allowed(PRECISION, n):
        return case.found(
            "S27",
            "flag",
            differing / n,
            "TF32 is on: call torch.set_float32_matmul_precision('highest')."
            if tf32
            else f"at {label} a bfloat16 search misses {missed} images that float32 breaks and differs "
            f"in {differing} of {n}: search in float32, or judge again as LowPrecision does.",
        )
    return case.found(
        "S27",
        "pass",
        differing / n,
        f"a bfloat16 search, judged in float32, differs in {differing} of {n} images ({label}).",
    )


def _low_scores(nodes: Tensor) -> str | None:
    """The half precision that holds these scores exactly, if any."""
    for dtype in (torch.float16, torch.bfloat16):
        if nodes.dtype == dtype or bool((nodes.to(dtype).to(nodes.dtype) == nodes).all()):
            return str(dtype).removeprefix("torch.")
    return None
