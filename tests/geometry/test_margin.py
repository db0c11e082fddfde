"""Theorem 1 and its extensions against golden numbers and a brute-force search."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from robustree.geometry import (
    class_dot_margin,
    class_margin,
    margin_curve,
    numeric_margin,
    numeric_two_class_margin,
    orthoplex_dot_margin,
    orthoplex_margin,
    pairwise_distance,
    simplex_dot_margin,
    simplex_margin,
    tangent_margin,
    two_class_dot_margin,
    two_class_margin,
)
from robustree.geometry.margin import tangent_norm

REACHED = 0.98


def test_golden_two_class_margins() -> None:
    assert two_class_margin(0.5, 1.0, 1.0) == pytest.approx(2.197225, abs=1e-6)
    assert two_class_margin(0.9, 1.0, 1.0) == pytest.approx(5.8889, abs=1e-4)
    assert two_class_margin(2.5, 0.1, 1.0) == pytest.approx(13.5718, abs=1e-4)
    assert two_class_margin(0.45, 4.0, 1.0) == pytest.approx(2.944439, abs=1e-6)
    assert two_class_dot_margin(2.5, 1.0) == 12.5


@pytest.mark.parametrize("curvature", [0.05, 0.1, 1.0, 4.0])
def test_the_forms_agree(curvature: float) -> None:
    for share in (0.01, 0.5, 0.99):
        eta = share / math.sqrt(curvature)
        a = math.sqrt(curvature) * eta
        two = two_class_margin(eta, curvature, 3.0)
        assert two == pytest.approx(tangent_margin(tangent_norm(eta, curvature), 3.0), rel=1e-12)
        assert two == pytest.approx(simplex_margin(eta, 2, curvature, 3.0), rel=1e-10)
        for classes in (2, 3, 10, 1000):
            stretch = 2 * a / (1 - a**2) * math.sqrt(classes / (2 * (classes - 1)))
            closed = 6.0 / math.sqrt(curvature) * math.asinh(stretch)
            assert simplex_margin(eta, classes, curvature, 3.0) == pytest.approx(closed, rel=1e-10)
            dot = 3.0 * eta**2 * classes / (classes - 1)
            assert simplex_dot_margin(eta, classes, 3.0) == pytest.approx(dot, rel=1e-12)
        assert class_margin(eta, 1000, 512, curvature, 3.0) == orthoplex_margin(eta, curvature, 3.0)
        assert class_dot_margin(eta, 1000, 512, 3.0) == orthoplex_dot_margin(eta, 3.0)
        assert orthoplex_dot_margin(eta, 3.0) == pytest.approx(3.0 * eta**2, rel=1e-12)


def test_many_classes_cost_a_constant_while_dot_products_halve() -> None:
    assert simplex_margin(0.5, 1000, 1.0, 1.0) / two_class_margin(0.5, 1.0, 1.0) == pytest.approx(0.765, abs=1e-3)
    assert simplex_margin(0.95, 1000, 1.0, 1.0) / two_class_margin(0.95, 1.0, 1.0) == pytest.approx(0.906, abs=1e-3)
    loss = two_class_margin(1 - 1e-9, 1.0, 1.0) - simplex_margin(1 - 1e-9, 1000, 1.0, 1.0)
    assert loss == pytest.approx(math.log(2 * 999 / 1000), rel=1e-6)


@pytest.mark.parametrize(("curvature", "eta"), [(1.0, 0.5), (1.0, 0.9), (0.1, 2.5), (4.0, 0.45)])
def test_two_classes_by_brute_force(curvature: float, eta: float, generator: torch.Generator) -> None:
    truth = two_class_margin(eta, curvature, 2.0)
    found = numeric_two_class_margin(eta, curvature, 2.0, generator=generator)
    assert REACHED * truth <= found <= truth * (1 + 1e-9)


@pytest.mark.parametrize(("classes", "dimension"), [(3, 2), (4, 2), (5, 3), (4, 4)])
def test_more_classes_by_brute_force(classes: int, dimension: int, generator: torch.Generator) -> None:
    def hyperbolic(points: Tensor, prototypes: Tensor) -> Tensor:
        return -pairwise_distance(points, prototypes, curvature=1.0)

    def dot(points: Tensor, prototypes: Tensor) -> Tensor:
        return points @ prototypes.T

    truth = class_margin(0.8, classes, dimension, 1.0, 1.0)
    found = numeric_margin(hyperbolic, math.atanh(0.8), classes, dimension, generator=generator)
    assert REACHED * truth <= found <= truth * (1 + 1e-9)
    truth = class_dot_margin(0.8, classes, dimension, 1.0)
    found = numeric_margin(dot, 0.8, classes, dimension, generator=generator)
    assert REACHED * truth <= found <= truth * (1 + 1e-9)


def test_the_curve_holds_what_a_plot_needs() -> None:
    curve = margin_curve(0.1, 2.0, classes=1000, dimension=512, count=11, reach=0.99)
    assert len(curve.ball_norm) == len(curve.tangent_norm) == len(curve.hyperbolic) == len(curve.dot) == 11
    assert curve.ball_norm[0] == curve.hyperbolic[0] == curve.dot[0] == 0.0
    assert curve.ball_norm[-1] == pytest.approx(0.99 / math.sqrt(0.1))
    assert curve.hyperbolic[-1] == orthoplex_margin(curve.ball_norm[-1], 0.1, 2.0)
    straight = margin_curve(0.1, 2.0)
    assert straight.hyperbolic == pytest.approx([8.0 * rho for rho in straight.tangent_norm])


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="eta is 1"):
        two_class_margin(1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="curvature is 0"):
        two_class_margin(0.5, 0.0, 1.0)
    with pytest.raises(ValueError, match="9 classes in 4 dimensions"):
        class_margin(0.5, 9, 4, 1.0, 1.0)
    with pytest.raises(ValueError, match="the norm is -1"):
        two_class_dot_margin(-1.0, 1.0)
    with pytest.raises(ValueError, match="reach 1"):
        margin_curve(1.0, 1.0, reach=1.0)
