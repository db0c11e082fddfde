"""S20 and S24: the classes of each level, their texts, and the head that compares."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import torch

from robustree.attacks import AutoAttack
from robustree.auditing.checks.case import Case, listed, percent
from robustree.auditing.checks.catalogue import ALIKE
from robustree.auditing.checks.check import Check, found
from robustree.auditing.plan import Plan
from robustree.auditing.statistics import wilson
from robustree.objectives import Margin
from robustree.taxonomy import Cut, Forest
from robustree.tree_model import Scores, columns

SAME_SCORES = 1e-3
"""Difference between scores and those that the head on record gives, of their spread."""
ROWS_AT_ONCE = 1024
"""Texts compared with all others at a time: bounds memory with many thousand classes."""


def classes(forest: Forest, plan: Plan) -> Check:
    """S20: are there enough nodes at each level for the attacks that aim at it?"""
    single = [cut.label for cut in forest.cuts() if len(cut.nodes) == 1]
    fewest = min(forest.cuts(), key=lambda cut: len(cut.nodes))
    wanted = max((_targets(part.attack) for part in plan.attacks), default=0)
    for cut in forest.cuts():
        if wanted and len(cut.nodes) > 1:
            aimed = _aims(cut, wanted)
            if aimed > len(cut.nodes) - 1:
                return found(
                    "S20",
                    "",
                    "fail",
                    aimed,
                    f"{cut.label} has {len(cut.nodes)} nodes, and the attacks would aim at {aimed} wrong ones: report "
                    "this as a defect.",
                )
    if single:
        return found(
            "S20",
            "",
            "flag",
            1,
            f"{', '.join(single)} has a single node, so every decision there is right whatever the attack: leave it "
            "out of means, or give the tree another top.",
        )
    adapted = [f"{cut.label} {len(cut.nodes) - 1}" for cut in forest.cuts() if wanted > len(cut.nodes) - 1]
    most = max(len(cut.nodes) for cut in forest.cuts())
    told = f"; {wanted} aims become {listed(adapted)}" if adapted else ""
    return found(
        "S20",
        "",
        "pass",
        len(fewest.nodes),
        f"levels have {len(fewest.nodes)} ({fewest.label}) to {most} nodes{told}.",
    )


def _targets(attack: object) -> int:
    inner = getattr(attack, "attack", None)
    if isinstance(attack, AutoAttack) or inner is None:
        return int(getattr(attack, "targets", 0))
    return _targets(inner)


def _aims(cut: Cut, wanted: int) -> int:
    """At how many nodes the library's objective really aims."""
    nodes = torch.zeros(1, max(cut.nodes) + 1)
    scores = Scores(nodes[:, :1], nodes[:, :1], nodes)
    return Margin(cut, torch.zeros(1, dtype=torch.long)).rivals(scores, wanted).shape[1]


def texts(case: Case, heads: Sequence[str]) -> Check:
    """S24: can texts be told apart, do the scores belong to the head, and is the model better than chance?

    `heads`: all heads of this model that are audited."""
    problems: list[str] = []
    pairs = _alike(case)
    if pairs:
        problems.append(
            f"{len(pairs)} pairs of nodes have one name or one text ({listed(pairs)}): rename or merge them"
        )
    difference = _head_difference(case)
    if difference > SAME_SCORES:
        problems.append(
            f"the scores differ by {difference:.2g} of their spread from those of the {case.subject.head} head on "
            "record (-scale * distance), so what is attacked may not be what is reported: score with the head"
        )
    chance = _no_better_than_chance(case)
    if chance:
        problems.append(f"{chance}: check class order, template and trees")
    if problems:
        return case.found("S24", "flag", len(problems), "; ".join(problems) + ".")
    head = case.subject.model.head
    others = [name for name in heads if name != case.subject.head]
    also = f"; the {', '.join(others)} head is audited beside it" if others else ""
    return case.found(
        "S24",
        "pass",
        0,
        f"no two nodes of a level share a name or a text, and the {case.subject.head} head (scale {head.scale:.4g}) is "
        f"attacked and scored{also}.",
    )


def _alike(case: Case) -> list[str]:
    """Pairs of nodes of one level that share a name (whatever its case, spaces and hyphens) or a text."""
    forest, prototypes = case.forest, case.clean.prototypes.double()
    names = [" ".join(name.casefold().replace("_", " ").replace("-", " ").split()) for name in forest.names]
    length, direction = prototypes.norm(dim=1), torch.nn.functional.normalize(prototypes, dim=1)
    pairs = []
    for cut in forest.cuts():
        nodes = columns(cut.nodes, prototypes.device)
        sharing: dict[str, list[int]] = defaultdict(list)
        for node in cut.nodes:
            sharing[names[node]].append(node)
        pairs_here = {pair for group in sharing.values() for pair in combinations(group, 2)}
        for part in nodes.split(ROWS_AT_ONCE):
            alike = direction[part] @ direction[nodes].T > ALIKE
            if case.subject.model.head.space.name != "sphere":  # elsewhere texts of one direction differ by their depth
                ratio = length[part, None] / length[nodes].clamp(min=1e-12)
                alike &= (ratio > ALIKE) & (ratio < 1 / ALIKE)
            ones, twos = (alike & (part[:, None] < nodes)).nonzero().unbind(1)
            pairs_here |= set(zip(part[ones].tolist(), nodes[twos].tolist(), strict=True))
        pairs += [f"{forest.names[one]!r} and {forest.names[two]!r} at {cut.label}" for one, two in sorted(pairs_here)]
    return pairs


def _head_difference(case: Case) -> float:
    """How far the scores are from -scale * distance(points, prototypes)."""
    scores, head = case.clean, case.subject.model.head
    with torch.no_grad():
        own = -head.scale * head.space.pairwise_distance(scores.points, scores.prototypes)
    spread = (own.amax(1) - own.amin(1)).mean().clamp(min=1e-12)
    return float((scores.nodes - own).abs().max() / spread)


def _no_better_than_chance(case: Case) -> str | None:
    n = len(case.leaves)
    for level in case.levels:
        right, chance = int(case.right(case.clean, level).sum()), 1 / len(level.cut.nodes)
        if wilson(right, n)[0] <= chance:
            return f"the clean accuracy at {level.label}, {percent(right, n)}, may be chance ({percent(chance, 1)})"
    return None
