"""Options that several commands share. Frozen records: the command line is derived from their fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from robustree.attacks import APGD, CW, FAB, PGD, AutoAttack, Square, Threat, parse_eps
from robustree.auditing.plan import LevelAttack

Device = Literal["cpu", "cuda"]
Eps = Annotated[
    float,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="EPS",
        instance_from_str=lambda words: parse_eps(words[0]),
        is_instance=lambda value: isinstance(value, float),
        str_from_instance=lambda value: [f"{value * 255:g}/255"],
    ),
]


@dataclass(frozen=True, kw_only=True)
class ThreatOptions:
    """What an attacker may do to an image."""

    eps: Eps = 4 / 255
    """Largest change of a pixel value in [0, 1] (linf), or of the whole image (l2)."""
    norm: Literal["linf", "l2"] = "linf"
    """How the size of a change is measured."""

    def threat(self) -> Threat:
        return Threat(eps=self.eps, norm=self.norm)


@dataclass(frozen=True, kw_only=True)
class PGDOptions:
    """Projected gradient descent (pgd and pgd-ce)."""

    steps: int = 20
    """Gradient steps a restart."""
    step_size: float = 0.25
    """Size of a step, in units of eps."""
    restarts: int = 1
    """Runs from different random starts; the best one counts."""

    def attack(self) -> PGD:
        return PGD(steps=self.steps, step_size=self.step_size, restarts=self.restarts)


AttackName = Literal[
    "pgd", "pgd-ce", "cw", "apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square", "autoattack-fast", "autoattack-standard"
]


def level_attack(name: AttackName, pgd: PGD) -> LevelAttack:
    """The attack of that name with its class's defaults, aimed at 9 wrong classes where it is aimed; `pgd` as given."""
    apgd, aimed = APGD(), APGD(targets=9)
    attacks: dict[AttackName, LevelAttack] = {
        "pgd": LevelAttack(pgd, "margin"),
        "pgd-ce": LevelAttack(pgd, "cross_entropy"),
        "cw": LevelAttack(CW(), "margin"),
        "apgd-ce": LevelAttack(apgd, "cross_entropy"),
        "apgd-dlr": LevelAttack(apgd, "ratio"),
        "apgd-t": LevelAttack(aimed, "ratio"),
        "fab-t": LevelAttack(FAB(targets=9), "margin"),
        "square": LevelAttack(Square(), "margin"),
        "autoattack-fast": LevelAttack(AutoAttack(version="fast"), None),
        "autoattack-standard": LevelAttack(AutoAttack(version="standard"), None),
    }
    return attacks[name]
