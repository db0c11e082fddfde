"""The audit's checks of itself: 27 ways in which a robust accuracy can be wrong, each measured.

What is here needs no torch: reports read it. `battery.run_checks` runs the checks."""

from robustree.auditing.checks.budget import Budget
from robustree.auditing.checks.check import FILE, Check, read_checks, worst

__all__ = ["FILE", "Budget", "Check", "read_checks", "worst"]
