"""Run attacks on models at every level of a forest and write rows; everything else is computed from the rows.

A row is (image, model, head, attack, attacked level) and the predictions at every level. Rows are appended in chunks;
a chunk whose rows exist is skipped, so an interrupted audit goes on where it stopped and ends in the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustree.attacks import AutoAttack, ImageNoise
from robustree.auditing.plan import Plan, Run, described, level_objective, stage_names
from robustree.auditing.rows import FOREST, Key, Row, open_rows
from robustree.auditing.sharing import ELSEWHERE, Found, attack_levels, judged
from robustree.checkpoint import device_of, weights_digest
from robustree.data import AuditImages
from robustree.objectives import Readout, level_scores
from robustree.processes import Processes
from robustree.taxonomy import Forest, forest_to_json
from robustree.tree_model import Predictor, Scores, TreeModel
from robustree.writing import write_whole

HEAD_NAMES = {"sphere": "cosine", "poincare": "hyperbolic", "euclidean": "euclidean"}
CHUNK = 4
"""Batches a chunk of rows: large enough that images which are decided early make room for others."""


@dataclass(frozen=True)
class Subject:
    """A model under audit: a name for the report, and the model with the head that is read."""

    name: str
    model: TreeModel

    @property
    def head(self) -> str:
        return HEAD_NAMES[self.model.head.space.name]


@dataclass(frozen=True)
class Status:
    """How far an audit is: `done` of `total` chunks, `images` attacked in the last one (0 where its rows existed)."""

    done: int
    total: int
    images: int
    doing: str


def audit(
    subjects: Sequence[Subject],
    images: AuditImages,
    forest: Forest,
    plan: Plan,
    directory: Path,
    *,
    command: str,
    report: Callable[[Status], None] = lambda status: None,
    processes: Processes | None = None,
) -> None:
    """Write `rows.jsonl`, `audit.json` and `forest.json` into `directory`; existing rows of the same audit are kept.

    Several `processes` share the chunks that are missing; the first one writes all rows, in the order of one process.

    Raises:
        ValueError: a model has another forest or parameters that need gradients, the directory holds another audit or
            is written by another process, or a model's scores are not finite.
        LostProcessError: another process of the audit ended.
    """
    processes = processes or Processes()
    _check(subjects, forest)
    size = plan.batch_size * CHUNK
    starts = range(0, len(images.ids), size)
    passes = list(plan.together(forest))
    jobs = [(s, runs, slice(start, start + size)) for s in subjects for runs in passes for start in starts]

    def made(number: int) -> list[Row]:
        subject, runs, index = jobs[number]
        return _chunk(subject, images, index, forest, plan, runs)

    with ExitStack() as held:
        rows, missing = None, []
        if processes.is_first:
            rows = held.enter_context(open_rows(directory, _header(subjects, images, forest, plan, command)))
            write_whole(directory / FOREST, json.dumps(forest_to_json(forest)))
            missing = [number for number, job in enumerate(jobs) if not all(key in rows for key in _keys(images, *job))]
        missing = processes.told(missing)
        done = 0
        for first in range(0, len(missing), processes.world):
            shared = missing[first : first + processes.world]
            own = made(shared[processes.rank]) if processes.rank < len(shared) else []
            for number, found in zip(shared, processes.collected(own), strict=False):
                if rows is not None:
                    _tell(report, jobs, done, number)
                    _tell(report, jobs, number, number + 1, rows.append(found))
                    done = number + 1
        if rows is not None:
            _tell(report, jobs, done, len(jobs))


Job = tuple[Subject, tuple[Run, ...], slice]
"""A chunk of rows: some images, one model, and one run or all those that share their images."""


def _keys(images: AuditImages, subject: Subject, runs: Sequence[Run], index: slice) -> Iterator[Key]:
    return ((image, subject.name, subject.head, run.name, run.attacked) for run in runs for image in images.ids[index])


def _tell(report: Callable[[Status], None], jobs: Sequence[Job], start: int, stop: int, fresh: int = 0) -> None:
    for number in range(start, stop):
        subject, runs, _ = jobs[number]
        doing = runs[0].attacked or "clean" if len(runs) == 1 else "all levels"
        report(Status(number + 1, len(jobs), fresh // len(runs), f"{subject.name} ({subject.head}) {doing}"))


def _check(subjects: Sequence[Subject], forest: Forest) -> None:
    keys = [(subject.name, subject.head) for subject in subjects]
    for subject, key in zip(subjects, keys, strict=True):
        if keys.count(key) > 1:
            raise ValueError(
                f"two models are named {subject.name!r} with the {subject.head} head: give each its own name."
            )
        if subject.model.forest.fingerprint != forest.fingerprint:
            raise ValueError(
                f"the model {subject.name!r} was built over another forest: load it with the audit's trees."
            )
        if any(p.requires_grad for p in subject.model.parameters()):
            raise ValueError(
                f"the model {subject.name!r} has parameters that need gradients: call requires_grad_(False) first."
            )


def _chunk(
    subject: Subject, images: AuditImages, index: slice, forest: Forest, plan: Plan, runs: Sequence[Run]
) -> list[Row]:
    """The rows of some images; every adversarial image is judged again, in full precision."""
    device = device_of(subject.model)
    clean, leaves = images.pixels[index].to(device), images.leaves[index].to(device)
    noises = [image_noise(images.ids[index], plan.seed, run, device) for run in runs]
    if plan.shares(runs[0]):
        found = attack_levels(subject.model, clean, leaves, forest, plan, runs, noises)
    else:
        made, broken_by = clean, list[str | None]([None] * len(leaves))
        if runs[0].attack:
            made, broken_by = attack_level(subject.model, clean, leaves, forest, plan, runs[0], noises[0])
        found = [Found(made, judged(subject.model, made, plan), broken_by)]
    return [
        row
        for run, level in zip(runs, found, strict=True)
        for row in _rows(subject, images.ids[index], clean, leaves, forest, plan, run, level)
    ]


def _rows(
    subject: Subject,
    ids: Sequence[str],
    clean: Tensor,
    leaves: Tensor,
    forest: Forest,
    plan: Plan,
    run: Run,
    level: Found,
) -> list[Row]:
    made, scores, broken_by = level
    if not bool(scores.nodes.isfinite().all()):
        raise ValueError(
            f"the model {subject.name!r} gave scores that are not finite ({_said(run)}); rows "
            "written so far are kept: check its weights."
        )
    decided = {readout: predictions(scores, forest, readout) for readout in ("direct", "summed")}
    valid, distance = plan.threat.contains(made, clean).tolist(), plan.threat.distance(made, clean).tolist()
    lists = {readout: {label: v.tolist() for label, v in values.items()} for readout, values in decided.items()}
    return [
        {
            "image": image,
            "leaf": int(leaves[i]),
            "model": subject.name,
            "head": subject.head,
            "attack": run.name,
            "attacked": run.attacked,
            "direct": {label: values[i] for label, values in lists["direct"].items()},
            "summed": {label: values[i] for label, values in lists["summed"].items()},
            "distance": distance[i],
            "valid": valid[i],
        }
        | ({"broken_by": broken_by[i]} if broken_by[i] else {})
        for i, image in enumerate(ids)
    ]


def _said(run: Run) -> str:
    return f"{run.name} at {run.attacked}" if run.attacked else f"{run.name} images"


def image_noise(ids: Sequence[str], seed: int, run: Run, device: torch.device) -> ImageNoise:
    """The random numbers of each image under a run; they do not depend on the model: models meet the same noise."""
    digests = [sha256(f"{seed}/{run.name}/{run.attacked}/{image}".encode()).digest() for image in ids]
    return ImageNoise(torch.tensor([int.from_bytes(d[:7], "big") for d in digests], device=device))


def attack_level(
    model: Predictor, images: Tensor, leaves: Tensor, forest: Forest, plan: Plan, run: Run, noise: ImageNoise
) -> tuple[Tensor, list[str | None]]:
    """Adversarial images of a run, and for each the stage of a cascade that broke it."""
    attack, loss = plan.prepared(run), run.attack.loss if run.attack else None
    objective = level_objective(forest, leaves, run.attacked, loss)
    if isinstance(attack, AutoAttack):
        found = attack.run(model, images, objective, plan.threat, generator=noise, batch_size=plan.batch_size)  # type: ignore[arg-type]
        names = stage_names(attack)
        return found.images, [names[stage] for stage in found.stage.tolist()]
    made = attack(model, images, objective, plan.threat, generator=noise, batch_size=plan.batch_size)
    return made, [None] * len(leaves)


def predictions(scores: Scores, forest: Forest, readout: Readout) -> dict[str, Tensor]:
    """The decision (B,) at every cut, as an index into the cut's nodes."""
    return {cut.label: level_scores(scores, cut, readout if cut.level else "direct").argmax(1) for cut in forest.cuts()}


def depth_spearman(model: TreeModel) -> float | None:
    """Rank correlation of the nodes' tree level (leaf deepest) with the norm of their text; None on the sphere, where
    norms mean nothing."""
    if model.head.space.name == "sphere":
        return None
    with torch.no_grad():
        norms = model.prototypes().norm(dim=1).double()
    forest = model.forest
    depths = torch.zeros(len(forest.names), dtype=torch.double)
    for tree in forest.trees:
        for number in range(len(tree.levels), 0, -1):
            for node in tree.levels[number - 1]:
                if node >= forest.leaf_count:
                    depths[node] = -number / (len(tree.levels) + 1)
    ranks = torch.stack([_ranks(depths), _ranks(norms.cpu())])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Tensor) -> Tensor:
    """Ranks with ties at their mean."""
    less = (values[None] < values[:, None]).sum(1)
    equal = (values[None] == values[:, None]).sum(1)
    return less.double() + (equal.double() - 1) / 2


def _header(
    subjects: Sequence[Subject], images: AuditImages, forest: Forest, plan: Plan, command: str
) -> dict[str, Any]:
    from robustree import __version__

    spearman = {f"{s.name}/{s.head}": depth_spearman(s.model) for s in subjects}
    return {
        "models": list(dict.fromkeys(subject.name for subject in subjects)),
        "heads": {
            f"{s.name}/{s.head}": {
                "scale": s.model.head.scale,
                **vars(s.model.head.space),
                "weights": weights_digest(s.model),
            }
            for s in subjects
        },
        "threat": {"eps": plan.threat.eps, "norm": plan.threat.norm},
        "attacks": {run.name: _record(run, plan) for run in plan.runs(forest) if run.attack},
        "stop": plan.stop,
        "forest": forest.fingerprint,
        "images": len(images.ids),
        "labels": sha256(json.dumps([images.ids, images.leaves.tolist()]).encode()).hexdigest(),
        "seed": plan.seed,
        "spearman": {name: value for name, value in spearman.items() if value is not None},
        "versions": {"robustree": __version__, "torch": torch.__version__},
        "command": command,
    }


def _record(run: Run, plan: Plan) -> dict[str, Any]:
    """An attack as JSON; a cascade with the names of its stages, and whether it shares its images."""
    part = run.attack
    assert part is not None
    if not isinstance(part.attack, AutoAttack):
        return described(part)
    stages = [stage.name for stage in part.attack.stages]
    shared = {"stages": [*stages, ELSEWHERE], "share": True} if plan.shares(run) else {"stages": stages}
    return described(part) | shared
