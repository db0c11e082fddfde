"""The precision island: autocast off, float64 inside, float32 or float64 out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from robustree.geometry import (
    Euclidean,
    Sphere,
    bound_norm,
    depth,
    distance,
    einstein_midpoint,
    exp0,
    hyperplane_certificate,
    log0,
    numerics,
    pairwise_distance,
)

LABELS = torch.tensor([0, 1, 2, 3])
WEIGHTS = torch.tensor([[1.0, 1, 0, 0], [0, 0, 2, 1]])
FUNCTIONS: list[Callable[[Tensor], Tensor]] = [
    lambda v: exp0(v, curvature=1.0),
    lambda v: log0(v * 0.3, curvature=1.0),
    depth,
    lambda v: distance(v, v.flip(0), curvature=1.0),
    lambda v: pairwise_distance(v, v.flip(0), curvature=1.0),
    lambda v: einstein_midpoint(v, WEIGHTS, curvature=1.0),
    lambda v: bound_norm(v, 2.0),
    lambda v: hyperplane_certificate(v, 0.5 * v, LABELS, curvature=1.0),
    lambda v: Euclidean().pairwise_distance(v, v.flip(0)),
    lambda v: Euclidean().midpoint(v, WEIGHTS),
    lambda v: Euclidean().depth(v),
    lambda v: Sphere().pairwise_distance(v, v.flip(0)),
    lambda v: Sphere().midpoint(v, WEIGHTS),
]


@pytest.fixture
def v(generator: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(4, 8, generator=generator), dim=1) * 2.0


@pytest.mark.parametrize("function", FUNCTIONS)
def test_result_dtypes(function: Callable[[Tensor], Tensor], v: Tensor) -> None:
    for given, result in (
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        assert function(v.to(given)).dtype == result


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(function: Callable[[Tensor], Tensor], dtype: torch.dtype, v: Tensor) -> None:
    plain, cast = v.to(dtype).requires_grad_(), v.to(dtype).requires_grad_()
    expected = function(plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = function(cast)
        assert torch.is_autocast_enabled("cpu")
        if found.requires_grad:
            found.sum().backward()
    assert torch.equal(found, expected)
    if expected.requires_grad:
        expected.sum().backward()
        assert plain.grad is not None
        assert cast.grad is not None
        assert torch.equal(plain.grad, cast.grad)


def test_integer_points_are_refused() -> None:
    with pytest.raises(ValueError, match="takes float points"):
        depth(torch.ones(2, 3, dtype=torch.long))


def test_many_near_pairs_are_recomputed_in_bounded_pieces(v: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    points = v.repeat(8, 1)
    whole = pairwise_distance(points, points + 1e-6, curvature=1.0)
    monkeypatch.setattr(numerics, "CHUNK", 7)
    assert torch.equal(pairwise_distance(points, points + 1e-6, curvature=1.0), whole)


def test_saved_memory_grows_with_pairs_not_with_pairs_times_dimension(generator: torch.Generator) -> None:
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    u = torch.randn(64, 256, generator=generator, requires_grad=True)
    w = torch.randn(128, 256, generator=generator, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        pairwise_distance(u, w, curvature=1.0)
    doubles = sum(saved.values()) / 8
    assert doubles <= 4 * 64 * 128 + 6 * (64 + 128) * 256
