"""Attacks: each maximises `objective(f(x))` inside a `threat`. A new attack is one file and one line here."""

from robustree.attacks.pgd import PGD, Objective
from robustree.attacks.threat import Threat, parse_eps

__all__ = ["PGD", "Objective", "Threat", "parse_eps"]
