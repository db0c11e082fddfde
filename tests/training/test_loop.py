"""What a run does step by step: its data, its log, its state, and when it stops."""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from robustree.attacks import PGD
from robustree.geometry import Sphere
from robustree.methods import FARE, Hierarchical, TeCoA
from robustree.taxonomy import TreeSource, build_forest
from robustree.training import NonFiniteError, Progress, train
from robustree.tree_model import TreeModel
from tests.training.tiny import LEAVES

Weights = dict[str, Tensor]


def _run(worker: ModuleType, directory: Path, *, model: TreeModel | None = None, **options: Any) -> Weights:
    """Train the worker's run, or one with changes, and return a copy of the weights."""
    recipe, data = options.pop("recipe", worker.RECIPE), options.pop("data", None)
    model = model or worker.tree_model(recipe.space)
    train(model, recipe, data or worker.Pictures(), directory=directory, **options)
    return {name: value.clone() for name, value in model.state_dict().items()}


def _equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _stop_after(count: int) -> Any:
    calls = iter(range(1, 1000))
    return lambda: next(calls) >= count


def _steps(directory: Path) -> list[int]:
    with (directory / "log.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_ten_steps_are_five_and_five(worker: ModuleType, tmp_path: Path) -> None:
    whole = _run(worker, tmp_path / "whole")
    half = _run(worker, tmp_path / "parts", stop=_stop_after(5))
    assert _steps(tmp_path / "parts") == [1, 2, 3, 4, 5]
    assert not _equal(half, whole)
    parts = _run(worker, tmp_path / "parts")
    assert _equal(parts, whole)
    assert (tmp_path / "parts" / "log.csv").read_bytes() == (tmp_path / "whole" / "log.csv").read_bytes()
    states = [load_file(tmp_path / name / "state.safetensors") for name in ("parts", "whole")]
    assert _equal(*states)  # the moments of the optimiser too


def test_a_finished_run_stays_finished(worker: ModuleType, tmp_path: Path) -> None:
    whole = _run(worker, tmp_path)
    data, reports = worker.Pictures(), []
    again = _run(worker, tmp_path, data=data, report=reports.append)
    assert _equal(again, whole)
    assert not data.seen and not reports


def test_the_same_recipe_gives_the_same_weights_and_another_seed_others(worker: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = _run(worker, tmp_path / "1")
    torch.manual_seed(2)
    assert _equal(_run(worker, tmp_path / "2"), first)
    assert not _equal(_run(worker, tmp_path / "3", recipe=replace(worker.RECIPE, seed=1)), first)


def test_training_learns(worker: ModuleType, tmp_path: Path) -> None:
    logs: list[Progress] = []
    recipe = replace(worker.RECIPE, method=TeCoA(), space=Sphere(), steps=40, lr=3e-2)
    _run(worker, tmp_path, recipe=recipe, report=logs.append)
    losses = [progress.logs["loss"] for progress in logs]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.parametrize("method", [TeCoA(), Hierarchical(), Hierarchical(train_text=False)])
def test_what_is_not_trained_does_not_move(worker: ModuleType, tmp_path: Path, method: Any) -> None:
    recipe = replace(worker.RECIPE, method=method, steps=2)
    before = {name: value.clone() for name, value in worker.tree_model().state_dict().items()}
    after = _run(worker, tmp_path, recipe=recipe)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == ({"image_encoder", "text_projection"} if method.trains_text else {"image_encoder"})


def test_every_image_is_seen_once_an_epoch_in_an_order_of_its_own(worker: ModuleType, tmp_path: Path) -> None:
    data = worker.Pictures(count=20)
    _run(worker, tmp_path, data=data, recipe=replace(worker.RECIPE, steps=15))
    order = [image for chunk in data.seen for image in chunk]
    epochs = [order[start : start + 20] for start in range(0, 60, 20)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_an_incomplete_last_batch_is_left_out_of_its_epoch(worker: ModuleType, tmp_path: Path) -> None:
    data = worker.Pictures(count=22)
    _run(worker, tmp_path, data=data, recipe=replace(worker.RECIPE, steps=10))
    order = [image for chunk in data.seen for image in chunk]
    for epoch in (order[:20], order[20:]):
        assert max(Counter(epoch).values()) == 1


def test_every_chunk_has_noise_of_its_own(worker: ModuleType, tmp_path: Path) -> None:
    data, other = worker.Pictures(), worker.Pictures()
    _run(worker, tmp_path / "0", data=data)
    _run(worker, tmp_path / "1", data=other, recipe=replace(worker.RECIPE, seed=1))
    assert len(set(data.noise + other.noise)) == 40


def test_micro_batches_without_noise_are_the_whole_batch(worker: ModuleType, tmp_path: Path) -> None:
    """Then the mean of the chunks' losses is the loss of the batch."""
    still = PGD(steps=2, step_size=0.5, best=False, random_start=False)
    recipe = replace(worker.RECIPE, method=TeCoA(), space=Sphere(), attack=still, steps=4)
    weights: list[Weights] = []
    logs: list[list[Any]] = []
    for n in (1, 2, 4):
        data, reports = worker.Pictures(strength=0.0), []
        changed = replace(recipe, micro_batches=n)
        weights.append(_run(worker, tmp_path / str(n), data=data, recipe=changed, report=reports.append))
        logs.append([dict(progress.logs) for progress in reports])
    for other in logs[1:]:  # losses, and gradient norms before they are clipped
        assert other == [pytest.approx(expected, rel=1e-3) for expected in logs[0]]
    for name, value in weights[0].items():
        for other in weights[1:]:
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-5)


_seen_by_frozen: list[Tensor] = []


@dataclass(frozen=True, kw_only=True)
class _Comparing(FARE):
    """Remembers what the frozen model says about one image."""

    def inner(self, context: Any) -> Any:
        _seen_by_frozen.append(context.frozen(torch.full((1, 3, 4, 4), 0.5)).nodes)
        return super().inner(context)


def test_methods_compare_with_the_model_before_training_also_after_a_resume(worker: ModuleType, tmp_path: Path) -> None:
    _seen_by_frozen.clear()
    recipe = replace(worker.RECIPE, method=_Comparing(), space=Sphere())
    with torch.no_grad():
        before = worker.tree_model(Sphere())(torch.full((1, 3, 4, 4), 0.5)).nodes
    _run(worker, tmp_path, recipe=recipe, stop=_stop_after(5))
    _run(worker, tmp_path, recipe=recipe)
    assert len(_seen_by_frozen) >= 20  # twice a step
    assert all(torch.equal(nodes, before) for nodes in _seen_by_frozen)


def test_the_log_has_every_step_once_and_the_numbers_that_were_reported(worker: ModuleType, tmp_path: Path) -> None:
    reports: list[Progress] = []
    _run(worker, tmp_path, report=reports.append)
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [progress.step for progress in reports] == list(range(1, 11))
    for row, progress in zip(rows, reports, strict=True):
        assert (progress.steps, progress.images) == (10, 4)
        assert {name: float(value) for name, value in row.items() if name != "step"} == progress.logs
        assert progress.logs["lr"] == worker.RECIPE.learning_rate(progress.step - 1)
        assert math.isfinite(progress.logs["gradient_norm"])


def test_state_is_saved_at_every_interval_and_at_the_end(
    worker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    monkeypatch.setattr(
        "robustree.training.loop.save_state",
        lambda directory, tensors, reached, identity: saved.append(reached.step),
    )
    _run(worker, tmp_path, save_every=4)
    assert saved == [4, 8, 10]


@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights(
    worker: ModuleType, tmp_path: Path, step: int
) -> None:
    before = {} if step == 1 else _run(worker, tmp_path / "before", stop=_stop_after(step - 1))
    model = worker.tree_model()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    spoilt = worker.Pictures(spoil_at=2 * step)  # the second of two micro-batches
    with pytest.raises(NonFiniteError) as caught:
        _run(worker, tmp_path / "spoilt", model=model, data=spoilt, save_every=2)
    assert str(caught.value) == (
        f"the loss (nan) or the gradient norm (nan) was not finite at step {step}; "
        "the weights are those of the step before: lower lr or the weights of the loss."
    )
    assert _equal(dict(model.state_dict()), before or start)
    assert (tmp_path / "spoilt" / "state.safetensors").exists() == (step > 2)
    if step == 5:  # what was saved before is a state to go on from
        assert _steps(tmp_path / "spoilt") == [1, 2, 3, 4]
        assert _equal(_run(worker, tmp_path / "spoilt"), _run(worker, tmp_path / "whole"))


def test_a_gradient_that_is_not_finite_stops_the_run_too(worker: ModuleType, tmp_path: Path) -> None:
    model = worker.tree_model(Sphere())
    start = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = replace(worker.RECIPE, method=worker.Cornered(), space=Sphere())
    with pytest.raises(NonFiniteError, match=r"gradient norm \(nan\) was not finite at step 1;"):
        _run(worker, tmp_path, model=model, recipe=recipe)
    assert _equal(dict(model.state_dict()), start)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"lr": 0.02}, "lr was '0.01', now '0.02'"),
        ({"seed": 3}, "seed was '0', now '3'"),
        ({"steps": 11}, "steps was '10', now '11'"),
    ],
)
def test_the_state_of_another_recipe(
    worker: ModuleType, tmp_path: Path, changes: dict[str, Any], difference: str
) -> None:
    _run(worker, tmp_path, stop=_stop_after(1))
    with pytest.raises(ValueError) as caught:
        _run(worker, tmp_path, recipe=replace(worker.RECIPE, **changes))
    assert str(caught.value) == (f"'{tmp_path}' holds another run ({difference}): choose another output directory.")


def test_the_state_of_another_method_or_of_other_data(worker: ModuleType, tmp_path: Path) -> None:
    _run(worker, tmp_path, stop=_stop_after(1))
    with pytest.raises(ValueError, match=r"holds another run \(method was .Hierarchical\(.*, now 'FARE\(\)'\)"):
        _run(worker, tmp_path, recipe=replace(worker.RECIPE, method=FARE()))
    with pytest.raises(ValueError, match=r"holds another run \(images was 22, now 21\)"):
        _run(worker, tmp_path, data=worker.Pictures(count=21))
    flat = build_forest(LEAVES, [TreeSource("kind", {"a": ["dog", "cat"], "b": ["owl", "pear", "fig"]})])
    with pytest.raises(ValueError, match=r"holds another run \(forest was '"):
        _run(worker, tmp_path, model=worker.tree_model(forest=flat))


@pytest.mark.parametrize("keep", [0, 4, 300, -1])
def test_a_damaged_state_is_named(worker: ModuleType, tmp_path: Path, keep: int) -> None:
    _run(worker, tmp_path, stop=_stop_after(1))
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:keep])
    with pytest.raises(ValueError) as caught:
        _run(worker, tmp_path)
    assert str(caught.value).startswith(f"'{state}' is damaged (")
    assert str(caught.value).endswith("): delete it to start again.")


def test_a_file_that_is_no_state(worker: ModuleType, tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "state.safetensors")
    with pytest.raises(ValueError, match=r"state.safetensors' is no state of a run: delete it to start again\."):
        _run(worker, tmp_path)


def test_data_smaller_than_a_batch(worker: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        _run(worker, tmp_path, data=worker.Pictures(count=3))
    assert str(caught.value) == "the data has 3 images; a batch has 4: lower batch_size."
    assert len(_run(worker, tmp_path, data=worker.Pictures(count=4)))
