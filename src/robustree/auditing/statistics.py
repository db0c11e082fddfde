"""Intervals and tests for paired yes/no outcomes, in closed form or by a seeded bootstrap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

QUANTILE_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal law: two-sided 95 % intervals."""
KEPT_BYTES = 2**25
"""Draws of the bootstrap that are kept for the next call, at most; beyond, every call draws them again."""
BLOCK_NUMBERS = 2**21
"""How many numbers of draws are used at a time: 16 MiB in double precision."""


def wilson(count: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of the rate count / n.

    centre = (p + z^2 / 2n) / (1 + z^2 / n), half width = z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2 / n).

    Both ends lie in [0, 1] and enclose the rate. Raises ValueError unless 0 <= count <= n and n >= 1.
    Source: Wilson, J. Am. Stat. Assoc. 22 (1927).
    """
    if n < 1 or not 0 <= count <= n:
        raise ValueError(f"A rate needs 0 <= count <= n and n >= 1, but count is {count} and n is {n}.")
    rate, square = count / n, QUANTILE_95**2
    centre = (rate + square / (2 * n)) / (1 + square / n)
    half = QUANTILE_95 * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n)) / (1 + square / n)
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))


def resampled_means(values: NDArray[np.float64], *, resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the column means of `values` (n, F) under each of the bootstrap's resamples: (resamples, F).

    The resampled rows are a function of (n, resamples, seed) alone, the same for every column and every
    call: differences and ratios of results are therefore paired.
    Raises ValueError without rows or with fewer than 100 resamples. Source: Efron, Ann. Stat. 7 (1979).
    """
    if values.ndim != 2 or not len(values):
        raise ValueError(f"The bootstrap needs an array (n >= 1, F), but its shape is {values.shape}.")
    if resamples < 100:
        raise ValueError(f"resamples is {resamples}, but a 95 % interval needs 100 or more.")
    n = len(values)
    blocks = _kept_draws if n * resamples <= KEPT_BYTES else _draws
    return np.concatenate([block.astype(np.float64) @ values for block in blocks(n, resamples, seed)]) / n


def _draws(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Yield how often each resample draws each row, some resamples at a time: (at most resamples, n); bytes, as no row
    is drawn 256 times."""
    random, size = np.random.default_rng(seed), max(1, BLOCK_NUMBERS // n)
    for start in range(0, resamples, size):
        block = np.empty((min(size, resamples - start), n), dtype=np.uint8)
        for counts in block:
            counts[:] = np.bincount(random.integers(0, n, n), minlength=n)
        yield block


@lru_cache(maxsize=2)
def _kept_draws(n: int, resamples: int, seed: int) -> tuple[NDArray[np.uint8], ...]:
    return tuple(_draws(n, resamples, seed))


def percentile_interval(samples: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles of bootstrap samples of shape (resamples,).

    NaN marks a resample in which the figure does not exist (no mistakes, say) and is left out.
    Raises ValueError if none is left.
    """
    kept = samples[~np.isnan(samples)]
    if not len(kept):
        raise ValueError("The figure exists in no resample, so it has no interval: leave it out.")
    low, high = np.quantile(kept, (0.025, 0.975))
    return float(low), float(high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return McNemar's exact two-sided p-value for two discordant counts.

    p = min(1, 2 P[X <= min(b, c)]) with X ~ Binomial(b + c, 1/2), and 1 if b + c = 0.

    Raises ValueError for a negative count. Source: McNemar, Psychometrika 12 (1947), exact form.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"Discordant counts are at least 0, but they are {only_first} and {only_second}.")
    n = only_first + only_second
    ways, tail = 1, 0
    for k in range(min(only_first, only_second) + 1):
        tail += ways
        ways = ways * (n - k) // (k + 1)
    return float(min(1, 2 * tail / 2**n)) if n else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjustment of p-values, in their own order.

    Sorted upwards, p_(i) becomes max over j <= i of min(1, (m - j + 1) p_(j)).

    Source: Holm, Scand. J. Stat. 6 (1979).
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
