"""Attacks: each maximises `objective(f(x))` inside a `threat`. A new attack is one file and one line here."""

from robustree.attacks.apgd import APGD
from robustree.attacks.noise import ImageNoise
from robustree.attacks.pgd import PGD
from robustree.attacks.search import Aimable, Attack, Objective, Search
from robustree.attacks.threat import Threat, parse_eps

__all__ = ["APGD", "PGD", "Aimable", "Attack", "ImageNoise", "Objective", "Search", "Threat", "parse_eps"]
