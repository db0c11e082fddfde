"""Which runs cannot succeed any more, going by how fast they came closer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

EARLIEST, CHECKS = 8, (4, 2)
"""Leads are compared at these fractions of a run: an eighth (noted only), a quarter, half."""
SHORTEST = 32
"""Runs of fewer evaluations are too short to foresee anything."""


class Foresight:
    """For each place of a batch, the best lead so far and whether the run is hopeless.

    A run of E evaluations is hopeless after n of them, n = E / 4 or E / 2, if
    l_n + optimism * log2(E / n) * (l_n - l_{n/2}) < 0, with l_n the best lead of n evaluations: the decision would
    stand even if each later doubling of the evaluations gained `optimism` times what the last one did. Gains fall from
    doubling to doubling where the way is smooth, and more than 1 allows for rough ones. An objective without a lead
    (-inf) is never hopeless, and without `optimism` nothing is."""

    def __init__(self, evaluations: int, optimism: float | None, device: torch.device) -> None:
        foresees = optimism is not None and evaluations >= SHORTEST
        self.optimism = optimism or 0.0
        self.first = evaluations // EARLIEST
        self.doublings = {evaluations // part: math.log2(part) for part in (EARLIEST, *CHECKS)} if foresees else {}
        self.lead, self.earlier = torch.empty(0, device=device), torch.empty(0, device=device)
        self.hopeless = torch.empty(0, dtype=torch.bool, device=device)

    def enter(self, count: int) -> None:
        """Take in `count` new runs."""
        never = self.lead.new_full((count,), -torch.inf)
        self.lead, self.earlier = torch.cat([self.lead, never]), torch.cat([self.earlier, never])
        self.hopeless = torch.cat([self.hopeless, self.hopeless.new_zeros(count)])

    def look(self, lead: Tensor, looked: Sequence[int]) -> None:
        """Learn the lead (P,) of every place, which has now been looked at `looked` times."""
        if not self.doublings:
            return
        self.lead = torch.fmax(self.lead, lead.to(self.lead.dtype))  # no number, no news
        if not any(count in self.doublings for count in looked):
            return
        due = torch.tensor([count in self.doublings for count in looked], device=lead.device)
        judged = due & torch.tensor([count != self.first for count in looked], device=lead.device)
        left = torch.tensor([self.doublings.get(count, 0.0) for count in looked], device=lead.device)
        reach = self.lead + self.optimism * left * (self.lead - self.earlier)
        self.hopeless = self.hopeless | (judged & (reach < 0))
        self.earlier = self.lead.where(due, self.earlier)

    def stay(self, places: Tensor) -> None:
        """Keep only these places (Q,)."""
        self.lead, self.earlier, self.hopeless = self.lead[places], self.earlier[places], self.hopeless[places]
