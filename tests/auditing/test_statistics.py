"""Intervals and tests against closed forms, enumeration and known values."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from robustree.auditing import statistics
from robustree.auditing.statistics import holm, mcnemar, percentile_interval, resampled_means, wilson


@pytest.mark.parametrize(("count", "n"), [(0, 10), (1, 7), (5, 10), (10, 10), (37, 262), (1, 1)])
def test_wilson_ends_solve_the_score_equation(count: int, n: int) -> None:
    rate, z = count / n, 1.959963984540054
    for end in wilson(count, n):
        assert 0 <= end <= 1
        assert (rate - end) ** 2 == pytest.approx(z * z * end * (1 - end) / n, abs=1e-12)


def test_wilson_known_values() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert wilson(8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-5)


@pytest.mark.parametrize(
    ("b", "c", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 6, 0.03125), (1, 8, 0.0390625), (10, 2, 158 / 4096)]
)
def test_mcnemar_known_values(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == mcnemar(c, b) == pytest.approx(p, rel=1e-12)


def test_mcnemar_by_enumeration_and_far_out() -> None:
    for n in range(1, 25):
        for b in range(n + 1):
            extreme = sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(2 * b - n))
            assert mcnemar(b, n - b) == pytest.approx(extreme / 2**n)
    assert 0 <= mcnemar(0, 5000) < 1e-300


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_bootstrap_is_seeded_paired_and_close_to_the_normal_interval() -> None:
    values = np.random.default_rng(0).random((400, 1)) < 0.3
    columns = np.column_stack([values, ~values, np.ones(400)]).astype(np.float64)
    means = resampled_means(columns, resamples=2000, seed=5)
    assert np.allclose(means[:, 0] + means[:, 1], 1) and np.allclose(means[:, 2], 1)
    assert np.array_equal(means, resampled_means(columns, resamples=2000, seed=5))
    assert not np.array_equal(means, resampled_means(columns, resamples=2000, seed=6))
    rate = values.mean()
    half = 1.96 * math.sqrt(rate * (1 - rate) / 400)
    assert percentile_interval(means[:, 0]) == pytest.approx((rate - half, rate + half), abs=0.006)


def test_draws_are_the_same_in_blocks_that_nobody_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random((90, 2))
    whole = resampled_means(values, resamples=300, seed=3)
    drawn = np.random.default_rng(3).integers(0, 90, 90)
    assert whole[0] == pytest.approx(values[drawn].mean(axis=0), rel=1e-14)
    monkeypatch.setattr(statistics, "KEPT_BYTES", 0)
    for numbers in (1, 7 * 90, 10**6):
        monkeypatch.setattr(statistics, "BLOCK_NUMBERS", numbers)
        np.testing.assert_allclose(resampled_means(values, resamples=300, seed=3), whole, rtol=1e-14)


@pytest.mark.parametrize(
    "broken",
    [
        lambda: wilson(1, 0),
        lambda: wilson(3, 2),
        lambda: mcnemar(-1, 2),
        lambda: resampled_means(np.zeros((0, 1)), resamples=200, seed=0),
        lambda: resampled_means(np.zeros((5, 1)), resamples=10, seed=0),
        lambda: percentile_interval(np.full(3, np.nan)),
    ],
)
def test_statistics_refuse_bad_input(broken: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        broken()
