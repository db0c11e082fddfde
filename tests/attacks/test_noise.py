from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from robustree.attacks import ImageNoise

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.float64]


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, seed: int = 0) -> ImageNoise:
    return ImageNoise.drawn(fresh(seed), count, CPU)


def split_mix(state: int) -> int:
    """One number of SplitMix64, in Python's own integers."""
    mask = 2**64 - 1
    z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
    return z ^ (z >> 31)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_numbers_are_those_of_the_definition_in_plain_integers() -> None:
    golden, mask = 0x9E3779B97F4A7C15, 2**64 - 1
    seeds, counters = [0, 1, 2**61 + 12345], [0, 7, 2**40 + 3]
    made = ImageNoise(torch.tensor(seeds)).uniform(torch.tensor(counters), (2, 3), torch.float64)
    rounded = ImageNoise(torch.tensor(seeds)).uniform(torch.tensor(counters), (2, 3), torch.float32)
    for row, row32, seed, counter in zip(made, rounded, seeds, counters, strict=True):
        key = split_mix(split_mix(seed) + counter * golden & mask)
        bits = [split_mix(key + place * golden & mask) for place in range(6)]
        assert row.flatten().tolist() == [b / 2**53 for b in (b >> 11 for b in bits)]
        assert row32.flatten().tolist() == [b / 2**24 for b in (b >> 40 for b in bits)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_numbers_have_the_moments_of_the_uniform_law(dtype: torch.dtype) -> None:
    drawn = noise(20).uniform(3, (20_000,), dtype).double()
    count = drawn.numel()
    for power in (1, 2, 3, 4):
        spread = (1 / (2 * power + 1) - 1 / (power + 1) ** 2) ** 0.5
        assert abs(float(drawn.pow(power).mean()) - 1 / (power + 1)) < 5 * spread / count**0.5
    share = torch.histc(drawn, 64, 0, 1) / count
    assert (share - 1 / 64).abs().max() < 5 * (1 / 64 / count) ** 0.5
    for row in drawn:  # each image on its own
        assert abs(float(row.mean()) - 0.5) < 5 * (1 / 12 / 20_000) ** 0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_numbers_have_the_moments_of_the_normal_law(dtype: torch.dtype) -> None:
    drawn = noise(20).normal(3, (20_000,), dtype).double()
    count = drawn.numel()
    assert drawn.isfinite().all()
    for power, moment, spread in ((1, 0, 1), (2, 1, 2**0.5), (3, 0, 15**0.5), (4, 3, 96**0.5)):
        assert abs(float(drawn.pow(power).mean()) - moment) < 5 * spread / count**0.5
    for edge in (-2.0, -1.0, 0.0, 1.0, 2.0):
        below = 0.5 * (1 + math.erf(edge / 2**0.5))
        assert abs(float((drawn < edge).double().mean()) - below) < 5 * (below * (1 - below) / count) ** 0.5


def test_seeds_counters_and_places_are_independent() -> None:
    count = 200_000
    limit = 5 / count**0.5
    near = ImageNoise(torch.tensor([5, 6, 7])).uniform(0, (count,), torch.float64)  # neighbours in the seed
    draws = [ImageNoise(torch.tensor([5])).uniform(counter, (count,), torch.float64)[0] for counter in (1, 2, 2**32)]
    for a, b in pairwise([*near, *draws]):
        assert abs(correlation(a, b)) < limit
        assert not (a == b).any()
    for lag in (1, 2, 3, 32, 224):
        assert abs(correlation(near[0, lag:], near[0, :-lag])) < limit
    over_seeds = ImageNoise(torch.arange(count)).uniform(0, (2,), torch.float64)
    assert abs(correlation(over_seeds[:, 0], over_seeds[:, 1])) < limit
    assert abs(correlation(over_seeds[1:, 0], over_seeds[:-1, 0])) < limit
    over_counters = ImageNoise(torch.zeros(count, dtype=torch.long)).uniform(torch.arange(count), (), torch.float64)
    assert abs(float(over_counters.mean()) - 0.5) < 5 * (1 / 12 / count) ** 0.5
    assert abs(correlation(over_counters[1:], over_counters[:-1])) < limit


def test_two_draws_of_seeds_are_one_and_no_two_seeds_agree() -> None:
    whole, parts = fresh(), fresh()
    made = torch.cat([ImageNoise.drawn(parts, count, CPU).seeds for count in (1, 7, 16, 33, 3)])
    assert torch.equal(made, ImageNoise.drawn(whole, 60, CPU).seeds)
    seeds = noise(50_000).seeds
    assert seeds.dtype == torch.int64 and len(seeds.unique()) == 50_000
    assert not torch.equal(noise(8, seed=1).seeds, noise(8).seeds)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_an_image_draws_the_same_numbers_in_any_batch_and_order(kind: str, dtype: torch.dtype) -> None:
    whole, counters, shape = noise(7), torch.tensor([0, 5, 2, 2, 2**40, 1, 9]), (3, 4, 5)
    drawn = getattr(whole, kind)(counters, shape, dtype)
    assert drawn.shape == (7, *shape) and drawn.dtype == dtype
    for index in (
        torch.tensor([3]),
        torch.tensor([6, 0, 3]),
        torch.arange(7).flip(0),
        torch.tensor([], dtype=torch.long),
    ):
        part = getattr(whole.take(index), kind)(counters[index], shape, dtype)
        assert torch.equal(part, drawn[index])
    assert torch.equal(getattr(whole, kind)(2, shape, dtype)[2:4], drawn[2:4])  # one counter for all, as a number
    assert getattr(whole, kind)(0, (), dtype).shape == (7,)


def test_a_shorter_draw_is_the_beginning_of_a_longer_one() -> None:
    long, short = (noise(2).uniform(0, (size,), torch.float64) for size in (50, 20))
    assert torch.equal(long[:, :20], short)


def test_streams_fork_into_others() -> None:
    mine = noise(4)
    forks = [mine.fork(key).uniform(0, (5_000,), torch.float64) for key in range(3)]
    assert torch.equal(mine.take(torch.tensor([2])).fork(1).uniform(0, (5_000,), torch.float64)[0], forks[1][2])
    for a, b in pairwise([mine.uniform(0, (5_000,), torch.float64), *forks]):
        assert abs(correlation(a, b)) < 5 / 20_000**0.5 and not (a == b).any()


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16, torch.bfloat16])
def test_the_largest_number_is_below_one(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = noise(8).uniform(0, (200_000,), dtype)
    assert drawn.min() >= 0 and drawn.max() < 1
    # all bits set is the largest number that can come
    monkeypatch.setattr("robustree.attacks.noise._mix", lambda z: torch.full_like(z, -1))
    largest = noise(1).uniform(0, (1,), dtype)
    bits = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}[dtype]
    assert float(largest) == 1 - 2.0**-bits and largest.dtype == dtype
    assert noise(1).normal(0, (1,), dtype).isfinite().all()
