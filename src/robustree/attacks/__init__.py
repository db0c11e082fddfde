"""Attacks: each maximises `objective(f(x))` inside a `threat`. A new attack is one file and one line here."""

from robustree.attacks.apgd import APGD
from robustree.attacks.auto import AutoAttack
from robustree.attacks.contract import Aimable, Attack, Objective
from robustree.attacks.cw import CW
from robustree.attacks.expectation import Expectation, straight_through
from robustree.attacks.fab import FAB
from robustree.attacks.noise import ImageNoise
from robustree.attacks.patch import Patch
from robustree.attacks.pgd import PGD
from robustree.attacks.precision import LowPrecision
from robustree.attacks.search import Search
from robustree.attacks.square import Square
from robustree.attacks.text import CharacterEdits
from robustree.attacks.threat import Threat, parse_eps
from robustree.attacks.transfer import Transfer

__all__ = [
    "APGD",
    "CW",
    "FAB",
    "PGD",
    "Aimable",
    "Attack",
    "AutoAttack",
    "CharacterEdits",
    "Expectation",
    "ImageNoise",
    "LowPrecision",
    "Objective",
    "Patch",
    "Search",
    "Square",
    "Threat",
    "Transfer",
    "parse_eps",
    "straight_through",
]
