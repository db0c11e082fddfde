"""Too little memory halves the micro-batches and nothing else: batches keep their images, and images their noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.attacks import PGD
from robustree.geometry import Sphere
from robustree.methods import AGFT, FARE, PMGAFT, Hierarchical, TeCoA
from robustree.training import ChangedCourseWarning, NotEnoughMemoryError, loop
from robustree.training.order import Division, part_of_batch
from robustree.training.state import STATE

Run = Callable[..., dict[str, Tensor]]

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory")


def _small_memory(patch: pytest.MonkeyPatch, error: Exception, *, largest: int, at: int, backward: bool) -> None:
    """From the n-th micro-batch on, memory holds `largest` images: in the attack, or only in the backward pass."""
    original, calls = loop.training_step, []

    def step(*arguments: Any) -> Any:
        calls.append(1)
        too_many = len(calls) >= at and len(arguments[6]) > largest
        if too_many and not backward:
            raise error
        loss, terms = original(*arguments)
        if too_many:
            loss.register_hook(lambda gradient: (_ for _ in ()).throw(error))
        return loss, terms

    patch.setattr(loop, "training_step", step)


@pytest.mark.parametrize("error", [CUDA, CPU], ids=["cuda", "cpu"])
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("method", [TeCoA(), FARE(), PMGAFT(), AGFT()])
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_gradient(
    run: Run,
    worker: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    backward: bool,
    method: Any,
) -> None:
    """Images keep their noise, so that methods whose loss is a mean over images learn the same."""
    recipe = replace(worker.RECIPE, method=method, space=Sphere(), batch_size=8, steps=4)
    whole = run(tmp_path / "whole", recipe=recipe)
    _small_memory(monkeypatch, error, largest=2, at=4, backward=backward)
    with pytest.warns(ChangedCourseWarning) as said:
        halved = run(tmp_path / "halved", recipe=recipe)
    assert [str(warning.message) for warning in said] == [
        "memory ran out at step 2 with micro-batches of 4 images: they are halved. Batches keep their images, and "
        "images their noise; methods that average images or move texts do so over fewer images."
    ]
    for name, value in whole.items():
        torch.testing.assert_close(halved[name], value, rtol=0, atol=1e-6, msg=name)


def test_a_halved_run_resumes_halved(run: Run, worker: ModuleType, tmp_path: Path) -> None:
    recipe = replace(worker.RECIPE, method=Hierarchical(parents="recursive"), batch_size=8, steps=6)

    for name, options in (("whole", {}), ("parts", {"stop_after": 3})):
        with pytest.MonkeyPatch.context() as patch:
            _small_memory(patch, CUDA, largest=2, at=4, backward=False)
            with pytest.warns(ChangedCourseWarning, match="they are halved"):
                run(tmp_path / name, recipe=recipe, **options)
    sizes: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        original = loop.training_step
        patch.setattr(loop, "training_step", lambda *rest: (sizes.append(len(rest[6])), original(*rest))[1])
        run(tmp_path / "parts", recipe=recipe)
    assert sizes == [2] * 12
    for file in (STATE, "log.csv"):
        assert (tmp_path / "parts" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_out_of_memory_again_ends_the_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _small_memory(monkeypatch, CUDA, largest=0, at=1, backward=False)
    with pytest.warns(ChangedCourseWarning), pytest.raises(NotEnoughMemoryError) as caught:
        run(tmp_path)
    assert str(caught.value) == (
        "memory ran out at step 1 with micro-batches of 1 images, which had been halved: free some memory and go on, "
        "or begin again with more micro_batches."
    )
    assert not list(tmp_path.iterdir())


def test_a_micro_batch_of_one_image_is_not_halved(
    run: Run, worker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _small_memory(monkeypatch, CUDA, largest=0, at=1, backward=False)
    with pytest.raises(NotEnoughMemoryError, match="with micro-batches of 1 images: free"):
        run(tmp_path, recipe=replace(worker.RECIPE, batch_size=2))


def test_other_errors_are_no_lack_of_memory(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _small_memory(monkeypatch, RuntimeError("shapes do not match"), largest=0, at=3, backward=False)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(tmp_path)


@pytest.mark.parametrize(("chunks", "split"), [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (1, 4), (2, 4), (1, 3), (4, 2)])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_every_image_of_a_batch_has_one_part_and_every_part_one_process(chunks: int, split: int, world: int) -> None:
    division, batch = Division(chunks=chunks, split=split), 24
    shares = [part for rank in range(world) for part in division.share(rank, world)]
    assert shares == list(range(division.parts))
    spans = [division.positions(part, batch)[1:] for part in shares]
    assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])] and spans[-1][1] == batch


def test_an_image_and_its_noise_do_not_depend_on_the_part(worker: ModuleType) -> None:
    """What is drawn for the attack after the images: one seed an image."""
    device, recipe = torch.device("cpu"), replace(worker.RECIPE, batch_size=12, attack=PGD(steps=1, best=False))

    def drawn(division: Division) -> tuple[Tensor, Tensor, Tensor]:
        parts = [
            part_of_batch(recipe, worker.Pictures(), 3, division, number, device) for number in range(division.parts)
        ]
        seeds = [torch.randint(2**62, (len(part.images),), generator=part.generator) for part in parts]
        return torch.cat([p.images for p in parts]), torch.cat([p.leaves for p in parts]), torch.cat(seeds)

    whole = drawn(Division(chunks=2))
    for split in (2, 3, 4, 6):
        for ours, expected in zip(drawn(Division(chunks=2, split=split)), whole, strict=True):
            assert torch.equal(ours, expected)
