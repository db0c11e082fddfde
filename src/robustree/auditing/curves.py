"""Robust accuracy against eps and against the steps of the attack: does it reach zero, and has it come to rest?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustree.attacks import PGD, ImageNoise, Objective, Threat
from robustree.auditing.audit import Status, Subject, image_noise
from robustree.auditing.curve_file import FILE, FORMAT, Fell, level_curves, read_curves
from robustree.auditing.plan import Plan, Run, described
from robustree.checkpoint import device_of, weights_digest
from robustree.data import AuditImages
from robustree.objectives import Margin, Readout, level_scores, targets
from robustree.taxonomy import Cut, Forest
from robustree.tree_model import Scores, TreeModel
from robustree.writing import write_whole

__all__ = ["find_falls", "measure_curves", "read_curves"]

EPS = tuple(k / 255 for k in (1, 2, 4, 8))
"""Where the eps curve is measured (linf); in l2 at these multiples of the plan's eps:"""
FACTORS = (0.25, 0.5, 1.0, 2.0)
STEPS = (5, 10, 20, 40, 100)


@dataclass(frozen=True, eq=False)
class _Case:
    """One subject's images at one level."""

    name: str
    model: TreeModel
    pixels: Tensor
    leaves: Tensor
    cut: Cut
    readout: Readout
    noise: ImageNoise
    plan: Plan

    def objective(self, index: Tensor) -> Margin:
        return Margin(self.cut, self.leaves[index], readout=self.readout)

    def wrong(self, images: Tensor, index: Tensor) -> Tensor:
        """(B,) whether the decision about each image, which shows `leaves[index]`, is wrong.

        Raises:
            ValueError: scores are not finite.
        """
        truth = targets(self.cut, self.leaves[index])
        with torch.no_grad():
            parts = [self.model(part) for part in images.split(self.plan.batch_size)]
        if not all(bool(scores.nodes.isfinite().all()) for scores in parts):
            raise ValueError(
                f"the model {self.name!r} gave scores that are not finite (curves at {self.cut.label}); other models' "
                "curves are kept: check its weights."
            )
        decided = [level_scores(scores, self.cut, self.readout).argmax(1) for scores in parts]
        return torch.cat(decided) != truth

    def attacked(self, attack: PGD, threat: Threat, index: Tensor, goal: Objective, starts: Tensor | None) -> Tensor:
        return attack(
            self.model,  # type: ignore[arg-type]
            self.pixels[index],
            goal,
            threat,
            generator=self.noise.take(index),
            batch_size=self.plan.batch_size,
            starts=starts,
        )


@dataclass(frozen=True, eq=False)
class _Counting:
    """An objective that notes for each image (N,) at which look it was first achieved; `looks` and `first` start at 0
    and -1."""

    inner: Objective
    index: Tensor
    looks: Tensor
    first: Tensor

    def __call__(self, scores: Scores) -> Tensor:
        return self.inner(scores)

    def lead(self, scores: Scores) -> Tensor:
        lead = self.inner.lead(scores)
        fresh = (lead > 0) & (self.first[self.index] < 0)
        self.first[self.index] = self.looks[self.index].where(fresh, self.first[self.index])
        self.looks[self.index] += 1
        return lead

    def take(self, index: Tensor) -> _Counting:
        return replace(self, inner=self.inner.take(index), index=self.index[index])


def measure_curves(
    subjects: Sequence[Subject],
    images: AuditImages,
    forest: Forest,
    plan: Plan,
    directory: Path,
    *,
    images_count: int = 64,
    eps: Sequence[float] | None = None,
    steps: Sequence[int] = STEPS,
    report: Callable[[Status], None] = lambda status: None,
) -> dict[str, Any]:
    """Measure every subject's curves at every level, write `curves.json` and return its content.

    On a subset of `images_count` images, spread evenly over the classes, by PGD on the margin (the plan's first PGD,
    or one of 20 steps). Over eps (default 1, 2, 4, 8 /255 and the plan's own; in l2 its quarter, half, itself, double):
    each search starts where the one of the smaller eps ended, and what falls at an eps has fallen at all larger ones.
    Over `steps`: one search of the most steps, which looks at what shorter ones would look at. A subject that the file
    holds already is not measured again; the file is written after each subject.

    Raises:
        ValueError: the file holds curves of another protocol or of another model of that name, grids are not positive
            and ascending, or scores are not finite.
    """
    attack = _pgd(plan)
    asked: dict[str, Sequence[float]] = {"eps": _eps_grid(plan.threat) if eps is None else eps, "steps": steps}
    for name, grid in asked.items():
        if not grid or list(grid) != sorted(set(grid)) or grid[0] <= 0:
            raise ValueError(f"the curves' {name} are {list(grid)}: give positive numbers in ascending order.")
    grids = {"eps": [0.0, *asked["eps"]], "steps": list(steps)}
    some = images.subset(min(images_count, len(images.ids)))
    protocol = _protocol(some, forest, plan, attack, grids)
    found = _found(directory, protocol)
    total = 2 * len(subjects) * len(forest.cuts())
    done = 0
    for subject in subjects:
        weights = weights_digest(subject.model)
        known = _known(found, subject, weights, directory)
        fell: dict[str, dict[str, Fell]] = {}
        for cut in forest.cuts():
            for axis in ("eps", "steps"):
                if not known:
                    fell.setdefault(cut.label, {})[axis] = find_falls(
                        subject, some, cut, plan, attack, axis, grids[axis]
                    )
                done += 1
                fresh = 0 if known else len(some.ids)
                report(Status(done, total, fresh, f"{subject.name} ({subject.head}) {cut.label} over {axis}"))
        if not known:
            entry = {"model": subject.name, "head": subject.head, "weights": weights, "fell": fell}
            # Read again: another process may have measured another model meanwhile.
            others = _found(directory, protocol)
            found = {**others, (subject.name, subject.head): entry | level_curves(fell, grids)}
            content = {
                "format": FORMAT,
                "protocol": protocol,
                "images": list(some.ids),
                "subjects": list(found.values()),
            }
            write_whole(directory / FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return read_curves(directory)


def _eps_grid(threat: Threat) -> list[float]:
    if threat.norm == "l2":
        return [factor * threat.eps for factor in FACTORS]
    others = [eps for eps in EPS if abs(eps - threat.eps) > 1e-9]
    return sorted([*others, threat.eps])


def _pgd(plan: Plan) -> PGD:
    """The plan's first PGD, which keeps its best image and stops at success."""
    attacks = [*(part.attack for part in plan.attacks), plan.all_levels]
    return replace(next((attack for attack in attacks if isinstance(attack, PGD)), PGD()), stop=True, targets=0)


def _protocol(
    images: AuditImages, forest: Forest, plan: Plan, attack: PGD, grids: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """What must be the same for curves of one file."""
    return {
        "forest": forest.fingerprint,
        "threat": {"eps": plan.threat.eps, "norm": plan.threat.norm},
        **{name: list(grid) for name, grid in grids.items()},
        "attack": described(attack),
        "loss": "margin",
        "readout": _readout(plan),
        "seed": plan.seed,
        "labels": sha256(json.dumps([images.ids, images.leaves.tolist()]).encode()).hexdigest(),
    }


def _readout(plan: Plan) -> Readout:
    return "direct" if "direct" in plan.readouts or not plan.readouts else plan.readouts[0]


Entries = dict[tuple[str, str], dict[str, Any]]


def _found(directory: Path, protocol: Mapping[str, Any]) -> Entries:
    """The subjects that the file holds already."""
    if not (directory / FILE).exists():
        return {}
    content = read_curves(directory)
    for name, value in json.loads(json.dumps(protocol)).items():
        if content["protocol"].get(name) != value:
            raise ValueError(
                f"{str(directory / FILE)!r} holds curves with another {name} ({content['protocol'].get(name)}): "
                "delete the file, or choose another directory."
            )
    return {(subject["model"], subject["head"]): subject for subject in content["subjects"]}


def _known(found: Entries, subject: Subject, weights: str, directory: Path) -> bool:
    entry = found.get((subject.name, subject.head))
    if entry is not None and entry["weights"] != weights:
        raise ValueError(
            f"{str(directory / FILE)!r} holds curves of another model called {subject.name!r}: delete the file, or "
            "give the model another name."
        )
    return entry is not None


def find_falls(
    subject: Subject, images: AuditImages, cut: Cut, plan: Plan, attack: PGD, axis: str, grid: Sequence[float]
) -> Fell:
    """Where on an ascending grid of "eps" (from 0 on) or "steps" each image's decision at a level falls.

    Raises:
        ValueError: scores are not finite.
    """
    device, readout = device_of(subject.model), _readout(plan)
    noise = image_noise(images.ids, plan.seed, Run(f"curve over {axis}", cut.label, None), device)
    pixels, leaves = images.pixels[:].to(device), images.leaves.to(device)
    own = readout if cut.level else "direct"
    case = _Case(subject.name, subject.model, pixels, leaves, cut, own, noise, plan)
    if axis == "eps":
        return _over_eps(case, attack, grid)
    return _over_steps(case, replace(attack, steps=int(grid[-1]), restarts=1))


def _begun(case: _Case) -> tuple[list[float | None], Tensor]:
    """Where images fell before any attack, and those (M,) that can be attacked."""
    everyone = torch.arange(len(case.pixels), device=case.leaves.device)
    wrong = case.wrong(case.pixels, everyone)
    fell: list[float | None] = [0.0 if is_wrong else None for is_wrong in wrong.tolist()]
    return fell, everyone[~wrong] if len(case.cut.nodes) > 1 else everyone[:0]


def _over_eps(case: _Case, attack: PGD, grid: Sequence[float]) -> Fell:
    fell, standing = _begun(case)
    starts = None
    for eps in grid[1:]:
        if not len(standing):
            break
        threat = replace(case.plan.threat, eps=eps)
        made = case.attacked(attack, threat, standing, case.objective(standing), starts)
        wrong = case.wrong(made, standing)
        for image in standing[wrong].tolist():
            fell[image] = eps
        standing, starts = standing[~wrong], made[~wrong]
    return fell


def _over_steps(case: _Case, attack: PGD) -> Fell:
    """The looks are the clean image, the random start, then one a step: the k-th step is look k + 1."""
    fell, standing = _begun(case)
    if not len(standing):
        return fell
    count = torch.zeros_like(standing)
    goal = _Counting(case.objective(standing), torch.arange(len(standing), device=count.device), count, count - 1)
    made = case.attacked(attack, case.plan.threat, standing, goal, None)
    wrong = case.wrong(made, standing)
    for image, look, fallen in zip(standing.tolist(), goal.first.tolist(), wrong.tolist(), strict=True):
        if fallen and look >= 0:
            fell[image] = max(0, look - 1)
    return fell
