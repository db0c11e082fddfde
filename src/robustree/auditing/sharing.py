"""A cascade at every level of the same images: what broke one level is tried at all others, and costs nothing there.

A forward pass scores every node of every tree, so an adversarial image that was judged once has been judged at every
level. Images that fall that way leave before a level's cascade begins; the others meet it as they would alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from robustree.attacks import AutoAttack, ImageNoise
from robustree.auditing.plan import Plan, Run, level_objective, stage_names
from robustree.objectives import Objective
from robustree.taxonomy import Forest
from robustree.tree_model import Predictor, Scores

ELSEWHERE = "other level"
"""What rows call the stage that broke an image which was found at another level."""


class Found(NamedTuple):
    """The images (B, ...) of one level, what the model says of them, and for each what broke it, if anything did."""

    images: Tensor
    scores: Scores
    broken_by: list[str | None]


def attack_levels(
    model: Predictor,
    clean: Tensor,
    leaves: Tensor,
    forest: Forest,
    plan: Plan,
    runs: Sequence[Run],
    noises: Sequence[ImageNoise],
) -> list[Found]:
    """The images of each run of one cascade, in the order of the runs.

    Whatever breaks without sharing breaks with it: an image that no other level's image breaks meets the same cascade
    with the same random numbers. Last, images that stood are compared with what was found for later levels.
    """
    pool, found = [(clean, judged(model, clean, plan))], list[Found]()
    for run, noise in zip(runs, noises, strict=True):
        found.append(_attacked(model, clean, leaves, forest, plan, run, noise, pool))
        pool.append((found[-1].images, found[-1].scores))
    return [_compared(level, _decision(forest, leaves, run), pool) for level, run in zip(found, runs, strict=True)]


def _attacked(
    model: Predictor,
    clean: Tensor,
    leaves: Tensor,
    forest: Forest,
    plan: Plan,
    run: Run,
    noise: ImageNoise,
    pool: Sequence[tuple[Tensor, Scores]],
) -> Found:
    attack, decision = run.attack.attack, _decision(forest, leaves, run)  # type: ignore[union-attr]
    assert isinstance(attack, AutoAttack)
    level = _compared(Found(*pool[0], [None] * len(leaves)), decision, pool)
    left = (decision.lead(level.scores) <= 0).nonzero()[:, 0]
    if not len(left):
        return level
    broken = attack.run(
        model,
        clean[left],
        decision.take(left),  # type: ignore[arg-type]
        plan.threat,
        generator=noise.take(left),
        batch_size=plan.batch_size,
    )
    level.images[left] = broken.images
    _put(level.scores, left, judged(model, broken.images, plan))
    names = stage_names(attack)
    for place, stage in zip(left.tolist(), broken.stage.tolist(), strict=True):
        level.broken_by[place] = names[stage]
    return level


def _compared(level: Found, decision: Objective, pool: Sequence[tuple[Tensor, Scores]]) -> Found:
    """A copy of the level in which another image takes the place of one that stood: the first of the pool that
    breaks."""
    images, points, nodes = level.images.clone(), level.scores.points.clone(), level.scores.nodes.clone()
    scores, broken_by = Scores(points, level.scores.prototypes, nodes), list(level.broken_by)
    for others, said in pool:
        better = ((decision.lead(scores) <= 0) & (decision.lead(said) > 0)).nonzero()[:, 0]
        images[better] = others[better]
        _put(scores, better, said.take(better))
        for place in better.tolist():
            broken_by[place] = ELSEWHERE
    return Found(images, scores, broken_by)


def _decision(forest: Forest, leaves: Tensor, run: Run) -> Objective:
    return level_objective(forest, leaves, run.attacked, None)


def _put(scores: Scores, places: Tensor, fresh: Scores) -> None:
    scores.points[places], scores.nodes[places] = fresh.points, fresh.nodes


@torch.no_grad()
def judged(model: Predictor, images: Tensor, plan: Plan) -> Scores:
    """What the model says of images, a batch at a time."""
    parts = [model(images[part]) for part in torch.arange(len(images), device=images.device).split(plan.batch_size)]
    return Scores(torch.cat([s.points for s in parts]), parts[0].prototypes, torch.cat([s.nodes for s in parts]))
