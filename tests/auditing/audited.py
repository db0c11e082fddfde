"""What the tests of audits share: a short plan, and how they name and judge rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from robustree.attacks import PGD, Threat
from robustree.auditing.plan import LevelAttack, Plan
from robustree.taxonomy import Forest

Row = dict[str, Any]
EPS = 8 / 255
PLAN = Plan(
    threat=Threat(eps=EPS),
    attacks=(LevelAttack(PGD(steps=3), "margin"), LevelAttack(PGD(steps=3), "cross_entropy")),
    all_levels=PGD(steps=3),
    batch_size=4,
    seed=3,
)
CLEAN = replace(PLAN, attacks=(), all_levels=None)


def margin(attack: PGD) -> Plan:
    """The plan with one attack, on the margin."""
    return replace(PLAN, attacks=(LevelAttack(attack),), all_levels=PGD(steps=1))


def key_of(row: Row) -> tuple[str, ...]:
    return row["image"], row["model"], row["head"], row["attack"], row["attacked"]


def true_of(row: Row, forest: Forest, label: str) -> int:
    return forest.find_cut(label).of_leaf[row["leaf"]]
