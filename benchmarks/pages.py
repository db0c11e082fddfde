"""What the pages of figures share: intervals over seeds, and tables put between their marks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from robustree.writing import write_whole


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % t interval over seeds."""
    quantiles = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
    mean = statistics.mean(values)
    return mean, quantiles[len(values)] * statistics.stdev(values) / math.sqrt(len(values))


def spread(shares: Sequence[float], sign: str = "") -> str:
    """Shares in [0, 1] over seeds as "12.3 ± 0.4" percent; the figure alone where there is one seed."""
    if len(shares) == 1:
        return f"{100 * shares[0]:{sign}.1f}"
    mean, half = interval([100 * share for share in shares])
    return f"{mean:{sign}.1f} ± {half:.1f}"


def put(page: Path, text: str, start: str, end: str | None = None) -> None:
    """Replace what stands in a page between two marks (the same one twice, where `end` is left out).

    Raises:
        ValueError: the page lacks a mark.
    """
    before, opening, rest = page.read_text(encoding="utf-8").partition(start)
    _, closing, after = rest.partition(end or start)
    if not (opening and closing):
        raise ValueError(f"{page} has no {start.strip()!r} and {(end or start).strip()!r}: put the marks back.")
    write_whole(page, before + opening + text + closing + after)
