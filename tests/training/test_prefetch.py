"""Reading ahead: the same parts in the same order, errors where they belong, and work that really overlaps."""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from robustree.data.decoding import decode, png_bytes
from robustree.training import Progress, train
from robustree.training.order import first_division, part_of_batch
from robustree.training.prefetch import Prefetch


def test_the_next_one_is_made_while_this_one_is_used() -> None:
    begun = {key: threading.Event() for key in range(3)}

    def make(key: int) -> int:
        begun[key].set()
        return 10 * key

    with Prefetch(make) as ahead:
        assert ahead.get(0, then=1) == 0
        assert begun[1].wait(10)  # nobody has asked for it yet
        assert ahead.get(1, then=None) == 10
        assert not begun[2].wait(0.05)


def test_one_thread_makes_everything_in_order_whatever_was_expected() -> None:
    made: list[tuple[int, str]] = []

    def make(key: int) -> int:
        made.append((key, threading.current_thread().name))
        return key

    with Prefetch(make) as ahead:
        assert [ahead.get(0, then=1), ahead.get(5, then=6), ahead.get(6, then=None)] == [0, 5, 6]
    assert [key for key, _ in made] == [0, 1, 5, 6]
    assert len({name for _, name in made}) == 1 and made[0][1] != threading.current_thread().name


def test_an_error_is_raised_where_its_result_is_asked_for() -> None:
    def make(key: int) -> int:
        return 1 // key

    with Prefetch(make) as ahead:
        assert ahead.get(1, then=0) == 1
        with pytest.raises(ZeroDivisionError):
            ahead.get(0, then=None)
        assert ahead.get(1, then=0) == 1  # and what nobody asks for disturbs nobody


def test_reading_in_a_thread_leaves_the_filters_of_warnings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They belong to all threads: the main one may be inside a block of its own that ignores a warning."""
    content = png_bytes(torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)))

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the filters of another thread would be put back")

    here = decode(content, "image")
    monkeypatch.setattr("robustree.data.decoding.warnings.catch_warnings", refused)
    with Prefetch(lambda name: decode(content, name)) as ahead:
        assert torch.equal(ahead.get("image", then=None), here)


def test_an_image_that_cannot_be_read_ends_the_run_at_its_step(worker: ModuleType, tmp_path: Path) -> None:
    class Broken(worker.Pictures):
        def images(self, index: Tensor, generator: torch.Generator) -> Tensor:
            if len(self.seen) == 6:  # two micro-batches a step: the fourth step
                raise ValueError("'fox.jpg' could not be read as an image")
            return super().images(index, generator)

    done: list[Progress] = []
    with pytest.raises(ValueError, match=r"fox\.jpg"):
        train(worker.tree_model(), worker.RECIPE, Broken(), directory=tmp_path, report=done.append)
    assert [progress.step for progress in done] == [1, 2, 3]


def test_the_run_sees_the_parts_of_every_step_and_no_more(worker: ModuleType, tmp_path: Path) -> None:
    seen, expected = worker.Pictures(), worker.Pictures()
    train(worker.tree_model(), worker.RECIPE, seen, directory=tmp_path)
    division = first_division(worker.RECIPE, 1)
    for step in range(worker.RECIPE.steps):
        for number in range(division.parts):
            part_of_batch(worker.RECIPE, expected, step, division, number, torch.device("cpu"))
    assert (seen.seen, seen.noise) == (expected.seen, expected.noise)
