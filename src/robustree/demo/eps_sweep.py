"""At which eps each level of each model falls, for one image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from robustree.attacks import PGD, Threat
from robustree.auditing.curves import find_falls
from robustree.auditing.plan import Plan
from robustree.data import AuditImages
from robustree.demo.bench import Bench, Sample
from robustree.demo.decisions import decide, levels_of

GRID = tuple(k / 255 for k in (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16))
ATTACK = PGD(steps=10, stop=True)


@dataclass(frozen=True, kw_only=True)
class Fall:
    """One level of one model (its position in the bench): wrong from `eps` on, 0 without any attack; None if it stands
    at the end of `GRID`."""

    subject: int
    level: str
    eps: float | None

    def stands(self, eps: float) -> bool:
        """Whether the decision is still right at that eps."""
        return self.eps is None or eps < self.eps


def sweep(bench: Bench, sample: Sample, tree: str) -> Iterator[Fall]:
    """Attack the margin of every level of a tree, coarsest first, in every model, over `GRID`.

    Each eps starts where the smaller one ended. What counts as right for an image without a label is what the model
    says of the clean one.
    """
    plan = Plan(threat=Threat(eps=GRID[-1]), attacks=(), all_levels=None)
    for cut in reversed(levels_of(bench.forest, tree)):
        for number, subject in enumerate(bench.subjects):
            leaf = sample.leaf
            if leaf is None:
                node = decide(subject, bench.forest, sample.pixels)[cut.label].node
                leaf = cut.of_leaf.index(cut.nodes.index(node))
            image = AuditImages(sample.pixels[None], torch.tensor([leaf]), (sample.name,))
            (eps,) = find_falls(subject, image, cut, plan, ATTACK, "eps", (0.0, *GRID))
            yield Fall(subject=number, level=cut.label, eps=eps)
