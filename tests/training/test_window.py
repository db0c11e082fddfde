"""The order over shards: each image once an epoch, near its neighbours, and a function of (seed, step, chunk)."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch

from robustree.training import Recipe, train
from robustree.training.order import Division, part_of_batch, windowed

COUNTS = torch.tensor([5, 0, 11, 3, 7])
TOTAL = int(COUNTS.sum())


def _epoch(epoch: int, *, chunks: int, window: int = 4, seed: int = 0) -> list[list[int]]:
    """What each reader sees in an epoch."""
    lengths = [TOTAL * (chunk + 1) // chunks - TOTAL * chunk // chunks for chunk in range(chunks)]
    return [
        windowed(seed, COUNTS, window, chunk, chunks, epoch * length, length).tolist()
        for chunk, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("chunks", [1, 2, 3, 5])
def test_every_image_is_seen_once_an_epoch(chunks: int) -> None:
    orders = [_epoch(epoch, chunks=chunks) for epoch in range(3)]
    for order in orders:
        assert sorted(chain.from_iterable(order)) == list(range(TOTAL))
    assert orders[0] != orders[1] != orders[2]
    assert _epoch(0, chunks=chunks, seed=1) != orders[0]


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_any_piece_of_the_sequence_can_be_had_alone(chunks: int) -> None:
    whole = windowed(0, COUNTS, 4, chunks - 1, chunks, 0, 100).tolist()
    for start, size in ((0, 1), (3, 9), (TOTAL // chunks - 1, 4), (57, 43)):
        assert windowed(0, COUNTS, 4, chunks - 1, chunks, start, size).tolist() == whole[start : start + size]


def test_a_block_comes_from_neighbouring_shards_and_a_wide_window_mixes_all() -> None:
    """Whatever the order of the shards, four images behind each other lie in at most four of them, as a block."""
    owner = torch.repeat_interleave(torch.arange(5), COUNTS)
    (order,) = _epoch(0, chunks=1, window=4)
    shards = owner[torch.tensor(order)].tolist()
    blocks = [set(shards[start : start + 4]) for start in range(0, TOTAL, 4)]
    opened = [shard for shard in range(5) if shard in shards]
    assert len(opened) == 4
    for shard in opened:  # a shard is in adjoining blocks only
        places = [number for number, block in enumerate(blocks) if shard in block]
        assert places == list(range(places[0], places[-1] + 1))
    (wide,) = _epoch(0, chunks=1, window=TOTAL)
    changes = sum(one != other for one, other in pairwise(wide) if owner[one] != owner[other])
    assert changes > 10


def _window(worker: ModuleType, **changes: object) -> Recipe:
    return replace(worker.RECIPE, window=8, **changes)  # type: ignore[arg-type]


def test_the_division_of_a_run_keeps_its_order_whatever_the_processes(worker: ModuleType, tmp_path: Path) -> None:
    """Two chunks computed by one process, by two, and halved for four: the same images and noise."""
    recipe, data = _window(worker), worker.streamed_pictures(tmp_path / "shards")
    cpu = torch.device("cpu")
    for step in range(12):
        batches = []
        for split in (1, 2):
            division = Division(chunks=2, split=split)
            parts = [part_of_batch(recipe, data, step, division, number, cpu) for number in range(division.parts)]
            batches.append(torch.cat([part.images for part in parts]))
        assert torch.equal(*batches)


def test_a_resumed_run_sees_every_image_once_and_ends_in_the_same_weights(worker: ModuleType, tmp_path: Path) -> None:
    recipe, seen = _window(worker, steps=11), list[list[int]]()
    whole = worker.streamed_pictures(tmp_path / "shards")
    expected = train(worker.tree_model(), recipe, whole, directory=tmp_path / "whole")
    for first, last in ((1, 3), (4, 7), (8, 11)):  # 22 images, 4 a batch: two epochs
        data, steps = worker.streamed_pictures(tmp_path / "shards"), iter(range(first, 12))
        data.seen = seen
        stop = lambda steps=steps, last=last: next(steps) == last  # noqa: E731
        model = train(worker.tree_model(), recipe, data, directory=tmp_path / "run", stop=stop)
        del seen[2 * last :]  # read ahead for a step that was not made
    for key, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    assert seen == whole.seen
    # Two readers draw 2 a step, and have 11 an epoch.
    first, second = ([i for part in seen[chunk::2] for i in part] for chunk in range(2))
    assert sorted(first[:11] + second[:11]) == sorted(first[11:] + second[11:]) == list(range(22))


def test_a_run_does_not_go_on_with_other_shards(worker: ModuleType, tmp_path: Path) -> None:
    recipe = _window(worker, steps=2)
    train(worker.tree_model(), recipe, worker.streamed_pictures(tmp_path / "a"), directory=tmp_path / "run")
    other = worker.streamed_pictures(tmp_path / "b", labels=list(reversed(range(22))))
    with pytest.raises(ValueError, match=r"holds another run \(shards was '\w+', now '\w+'\)"):
        train(worker.tree_model(), recipe, other, directory=tmp_path / "run")


def test_a_window_asks_for_shards_and_for_more_than_a_batch(worker: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="window is 8, but the data has no shards: leave it out, or give shards"):
        train(worker.tree_model(), _window(worker), worker.Pictures(), directory=tmp_path)
    with pytest.raises(ValueError, match="window 3 is smaller than batch_size 4: choose a window of many batches"):
        replace(worker.RECIPE, window=3)
