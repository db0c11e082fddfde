"""bf16: the encoders' matrix products, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from robustree.geometry import Euclidean, Poincare, Space, Sphere
from robustree.methods import AGFT, FARE, PMGAFT, Hierarchical, TeCoA
from robustree.objectives import CrossEntropy, EmbeddingShift, SoftCrossEntropy
from robustree.training import Progress, Recipe, train
from tests.training.tiny import Encoder

METHODS = [
    (TeCoA(), Sphere()),
    (FARE(), Sphere()),
    (PMGAFT(), Sphere()),
    (AGFT(), Sphere()),
    (Hierarchical(parents="both"), Poincare()),
    (Hierarchical(), Euclidean()),
]
IDS = ["tecoa", "fare", "pmg_aft", "agft", "poincare", "euclidean"]


def _losses(worker: ModuleType, directory: Path, recipe: Recipe) -> list[float]:
    reports: list[Progress] = []
    train(worker.tree_model(recipe.space), recipe, worker.Pictures(), directory=directory, report=reports.append)
    return [progress.logs["loss"] for progress in reports]


class _Products(TorchDispatchMode):
    """The dtypes of the matrix products, which are what autocast changes."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            self.dtypes.add(found.dtype)
        return found


@pytest.mark.parametrize(("method", "space"), METHODS, ids=IDS)
def test_geometry_and_losses_never_see_bf16(
    worker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any, space: Space
) -> None:
    seen: list[str] = []

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            given = [x for x in (*arguments, *named.values()) if isinstance(x, Tensor) and x.is_floating_point()]
            found = function(*arguments, **named)
            given += [found] if isinstance(found, Tensor) else []
            assert not torch.is_autocast_enabled("cpu"), name
            assert all(x.dtype in (torch.float32, torch.float64) for x in given), name
            seen.append(name)
            return found

        return call

    for name in ("pairwise_distance", "midpoint", "depth"):
        monkeypatch.setattr(type(space), name, watched(name, getattr(type(space), name)))
    for kind in (CrossEntropy, EmbeddingShift, SoftCrossEntropy):
        monkeypatch.setattr(kind, "__call__", watched(kind.__name__, kind.__call__))
    for name in ("cross_entropy", "nll_loss", "kl_div", "log_softmax", "relu"):
        monkeypatch.setattr(F, name, watched(name, getattr(F, name)))
    recipe = replace(worker.RECIPE, method=method, space=space, steps=1, precision="bf16")
    with _Products() as products:
        _losses(worker, tmp_path, recipe)
    assert torch.bfloat16 in products.dtypes
    assert "pairwise_distance" in seen and len(set(seen)) > 1


@pytest.mark.parametrize(("method", "space"), METHODS, ids=IDS)
def test_losses_are_those_of_fp32_within_the_tolerance_of_docs_scale(
    worker: ModuleType, tmp_path: Path, method: Any, space: Space
) -> None:
    recipe = replace(worker.RECIPE, method=method, space=space)
    exact = _losses(worker, tmp_path / "fp32", recipe)
    rough = _losses(worker, tmp_path / "bf16", replace(recipe, precision="bf16"))
    assert rough != exact
    # 1 %; FARE's loss is the square of a small shift, which rounding changes more: 20 %.
    assert rough == pytest.approx(exact, rel=0.2 if isinstance(method, FARE) else 0.01)


def test_pixels_arrive_in_fp32(worker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of 1/4 of 1/255 would vanish for half of the pixels in bf16."""
    forward, seen = Encoder.forward, []

    def watching(self: Any, images: Tensor) -> Tensor:
        seen.append((images.dtype, torch.is_autocast_enabled("cpu")))
        return forward(self, images)

    monkeypatch.setattr(Encoder, "forward", watching)
    _losses(worker, tmp_path, replace(worker.RECIPE, steps=1, precision="bf16"))
    assert set(seen) == {(torch.float32, True)}


def test_weights_states_and_what_comes_after_the_run_are_fp32(worker: ModuleType, tmp_path: Path) -> None:
    model = worker.tree_model()
    recipe = replace(worker.RECIPE, precision="bf16", steps=2)
    train(model, recipe, worker.Pictures(), directory=tmp_path)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert model.precision == "fp32"
    with pytest.raises(ValueError, match=r"holds another run \(precision was \"'bf16'\", now \"'fp32'\"\)"):
        train(worker.tree_model(), replace(recipe, precision="fp32"), worker.Pictures(), directory=tmp_path)


def test_a_precision_that_nobody_knows() -> None:
    with pytest.raises(ValueError) as caught:
        Recipe(method=TeCoA(), precision="fp16")  # type: ignore[arg-type]
    assert str(caught.value) == "precision is 'fp16'; fp32 and bf16 are supported: choose one."
