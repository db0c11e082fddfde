"""S23: whether the levels of a tree, their decisions and their attacks fit together."""

from __future__ import annotations

import torch

from robustree.auditing.checks.case import Case, listed
from robustree.auditing.checks.catalogue import AGREEMENT, FOREIGN, allowed
from robustree.auditing.checks.check import Check
from robustree.auditing.checks.rows import Rows
from robustree.auditing.outcomes import Outcomes
from robustree.objectives import level_scores
from robustree.taxonomy import Cut


def hierarchy(case: Case, rows: Rows | None) -> Check:
    """S23: is the model's forest the audit's, and do the levels agree with each other and with their attacks?"""
    for cut in case.forest.cuts():
        if len(cut.of_leaf) != case.forest.leaf_count or set(cut.of_leaf) != set(range(len(cut.nodes))):
            return case.found("S23", "fail", cut.label, f"{cut.label} does not give every leaf one node.")
    for level in case.levels[1:]:
        kappa = _kappa(case, level.cut)
        if kappa < AGREEMENT:
            return case.found(
                "S23",
                "flag",
                kappa,
                f"at {level.cut.label} the nodes' own decision agrees with the best leaf's no better than chance "
                f"(kappa {kappa:.2f}): the texts may belong to another tree or stand in another order.",
            )
    count, n, label, names = _overlooked(rows, case) if rows is not None else (0, 0, "", [])
    if count > allowed(FOREIGN, n):
        return case.found(
            "S23",
            "flag",
            count / n,
            f"attacks on other levels break {count} of {n} images at {label} ({listed(names)}) that stood against the "
            "attack on that level: it is too weak, so read the worst over all attacks, or give it more steps.",
        )
    return case.found(
        "S23",
        "pass",
        count / max(1, n),
        f"levels nest and agree, and attacks on other levels break at most {count} of {n} more.",
    )


def other_forest(case: Case) -> Check | None:
    """S23 for a model that was built over another forest; None if it was not."""
    own, audited = case.subject.model.forest, case.forest
    if own.fingerprint == audited.fingerprint:
        return None
    return case.found(
        "S23",
        "fail",
        own.fingerprint[:8],
        f"the model was built over another forest ({', '.join(t.name for t in own.trees) or 'no trees'}, "
        f"{own.fingerprint[:8]}) than the audit's ({', '.join(t.name for t in audited.trees) or 'no trees'}, "
        f"{audited.fingerprint[:8]}): its nodes mean something else, so load it with the audit's trees.",
    )


def _kappa(case: Case, cut: Cut) -> float:
    """Cohen's kappa of the direct and the via-leaf decisions about clean images; 1 if they are constant and equal."""
    direct, leaf = (level_scores(case.clean, cut, readout).argmax(1) for readout in ("direct", "via_leaf"))
    agreed = float((direct == leaf).double().mean())
    shares = [torch.bincount(v, minlength=len(cut.nodes)).double() / len(v) for v in (direct, leaf)]
    chance = float((shares[0] * shares[1]).sum())
    return 1.0 if chance == 1 else (agreed - chance) / (1 - chance)


def _overlooked(rows: Rows, case: Case) -> tuple[int, int, str, list[str]]:
    """The level at which attacks from elsewhere break most of what stood at its own: how many of how many, which."""
    table, worst = rows.table, (0, 0, "", list[str]())
    outcomes = Outcomes(table, table.subject(case.subject.name, case.subject.head))
    for index, cut in enumerate(table.cuts):
        aimed = outcomes.select(None, cut.label)
        if not aimed:
            continue
        standing, left = (outcomes.robust("direct", runs)[:, index] for runs in (aimed, outcomes.subject.runs))
        lost = [image for image, gone in zip(table.images, standing & ~left, strict=True) if gone]
        if len(lost) >= worst[0]:
            worst = (len(lost), len(table.images), cut.label, lost)
    return worst
