from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from robustree.attacks import ImageNoise, Threat, parse_eps

FREE = {"low": -math.inf, "high": math.inf}


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def random_start(threat: Threat, centre: Tensor, generator: torch.Generator) -> Tensor:
    return threat.random_start(centre, ImageNoise.drawn(generator, len(centre), centre.device), 0)


def scattered(generator: torch.Generator, *shape: int, spread: float = 0.5) -> tuple[Tensor, Tensor]:
    """Centres in the box [0, 1], and points that leave both the ball and the box."""
    centre = torch.rand(shape, generator=generator, dtype=torch.float64)
    return centre, centre + spread * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", [(1, 3, 5, 5), (3, 3, 2, 7), (4, 6)])
def test_projections_are_feasible_and_idempotent(norm: str, shape: tuple[int, ...], generator: torch.Generator) -> None:
    threat = Threat(eps=0.2, norm=norm)
    centre, outside = scattered(generator, *shape)
    once = threat.project(outside, centre)
    assert threat.contains(once, centre, tolerance=1e-12).all()
    assert torch.allclose(threat.project(once, centre), once, atol=1e-15)
    inside = threat.project(centre + 1e-3 * torch.rand_like(centre), centre)
    assert torch.allclose(threat.project(inside, centre), inside, atol=1e-15)


def test_the_cube_and_box_projection_is_nearest_by_bisection(generator: torch.Generator) -> None:
    # cube and box are both boxes, so each coordinate is alone: bisect the derivative of (z - x)^2 on its interval
    threat = Threat(eps=0.2)
    centre, outside = scattered(generator, 3, 3, 2, 4)
    low, high = (centre - 0.2).clamp(min=0), (centre + 0.2).clamp(max=1)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = torch.where(middle < outside, middle, low), torch.where(middle < outside, high, middle)
    assert torch.allclose(threat.project(outside, centre), (low + high) / 2, atol=1e-12)


def test_the_ball_projection_is_nearest_by_the_variational_inequality(generator: torch.Generator) -> None:
    # p is the nearest point of a convex set exactly when (x - p).(z - p) <= 0 for every z of the set
    threat = Threat(eps=0.7, norm="l2", **FREE)
    centre, outside = scattered(generator, 5, 3, 2, 2)
    nearest = threat.project(outside, centre)
    for _ in range(200):
        other = random_start(threat, centre, generator)
        assert (((outside - nearest) * (other - nearest)).flatten(1).sum(1) <= 1e-12).all()


def test_ball_then_box_is_feasible_but_not_always_nearest() -> None:
    # ball of radius 1 around the origin of [0, 2]^2: clipping (-3, 3) after shrinking gives (0, 0.71), not (0, 1)
    threat = Threat(eps=1.0, norm="l2", high=2.0)
    centre = torch.zeros(1, 2, dtype=torch.float64)
    made = threat.project(torch.tensor([[-3.0, 3.0]], dtype=torch.float64), centre)
    assert torch.allclose(made, torch.tensor([[0.0, 0.5**0.5]], dtype=torch.float64))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_ascent_is_the_unit_step_that_raises_a_linear_function_most(norm: str, generator: torch.Generator) -> None:
    threat = Threat(eps=1.0, norm=norm, **FREE)
    gradient = torch.randn(3, 3, 2, 5, generator=generator, dtype=torch.float64)
    step = threat.ascent(gradient)
    dual = gradient.flatten(1).abs().sum(1) if norm == "linf" else gradient.flatten(1).norm(dim=1)
    assert torch.allclose(threat.distance(step, torch.zeros_like(step)), torch.ones(3, dtype=torch.float64))
    assert torch.allclose((step * gradient).flatten(1).sum(1), dual)
    assert not threat.ascent(torch.zeros(2, 3, 2, 2)).any()


@pytest.mark.parametrize("size", [1.0, 1e-12, 1e-25, 1e-37, 1e18, 1e30])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_ascent_does_not_depend_on_the_size_of_the_gradient(norm: str, size: float, generator: torch.Generator) -> None:
    # cross-entropy gradients of float32 CLIP logits do go down to 1e-30, whose square is 0
    gradient = torch.randn(2, 3, 4, 4, generator=generator)
    threat = Threat(eps=1.0, norm=norm, **FREE)
    assert torch.allclose(threat.ascent(gradient * size), threat.ascent(gradient), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_are_inside_and_keep_the_type(norm: str, dtype: torch.dtype, generator: torch.Generator) -> None:
    threat = Threat(eps=8 / 255, norm=norm)
    centre = torch.rand(4, 3, 3, 5, generator=generator, dtype=dtype)
    start = random_start(threat, centre, generator)
    assert start.dtype == dtype and start.shape == centre.shape
    assert threat.contains(start, centre).all()
    assert (start.flatten(1) != centre.flatten(1)).any(1).all()


def test_random_starts_of_the_cube_have_the_moments_of_the_uniform_law(generator: torch.Generator) -> None:
    threat = Threat(eps=0.3, **FREE)
    delta = random_start(threat, torch.zeros(20_000, 6, dtype=torch.float64), generator) / 0.3
    assert delta.mean(0).abs().max() < 0.02  # 5 standard errors: sqrt(1/3) / sqrt(20000) = 0.0041
    assert (delta.square().mean(0) - 1 / 3).abs().max() < 0.011
    assert (delta.pow(4).mean(0) - 1 / 5).abs().max() < 0.0095
    assert (torch.corrcoef(delta.T) - torch.eye(6)).abs().max() < 0.036


def test_random_starts_of_the_ball_have_the_moments_of_the_uniform_law(generator: torch.Generator) -> None:
    # uniform in the unit ball of R^6: |x|^6 is uniform on [0, 1], and the covariance is I / (6 + 2)
    threat = Threat(eps=0.3, norm="l2", **FREE)
    delta = random_start(threat, torch.zeros(20_000, 6, dtype=torch.float64), generator) / 0.3
    volume = delta.norm(dim=1).pow(6)
    assert abs(float(volume.mean()) - 1 / 2) < 0.0103  # 5 standard errors
    assert abs(float(volume.square().mean()) - 1 / 3) < 0.0106
    assert (delta.T @ delta / len(delta) - torch.eye(6) / 8).abs().max() < 0.006
    assert delta.mean(0).abs().max() < 0.0125


def test_contains_refuses_what_is_outside_or_not_a_number() -> None:
    threat = Threat(eps=0.1)
    centre = torch.tensor([[0.5, 0.5], [0.05, 0.5], [0.5, 0.95], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])
    inputs = torch.tensor([[0.6, 0.4], [-0.01, 0.5], [0.5, 1.01], [0.62, 0.5], [math.nan, 0.5], [math.inf, 0.5]])
    assert threat.contains(inputs, centre).tolist() == [True, False, False, False, False, False]
    far = torch.tensor([[0.09, 0.09]])
    assert not Threat(eps=0.1, norm="l2", **FREE).contains(far, torch.zeros(1, 2)).any()
    assert Threat(eps=0.1, **FREE).contains(far, torch.zeros(1, 2)).all()


def test_distance_by_hand() -> None:
    a, b = torch.tensor([[[[3.0, 0.0], [0.0, -4.0]]]]), torch.zeros(1, 1, 2, 2)
    assert Threat(eps=1).distance(a, b).tolist() == [4.0]
    assert Threat(eps=1, norm="l2").distance(a, b).tolist() == [5.0]


@pytest.mark.parametrize(
    ("text", "value"), [("4/255", 4 / 255), (" 4 / 255 ", 4 / 255), ("0.0157", 0.0157), ("1", 1.0), ("1e-3", 1e-3)]
)
def test_eps_is_read_as_a_fraction_or_a_number(text: str, value: float) -> None:
    assert parse_eps(text) == value


@pytest.mark.parametrize("text", ["4", "0", "-1", "1.0001", "256/255", "-4/255", "1e400", "1e-400"])
def test_an_eps_outside_the_range_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(ValueError, match=rf"^eps is {text}; pixels are in \[0, 1\], so write 4/255, not 4\.$"):
        parse_eps(text)


@pytest.mark.parametrize("text", ["nan", "inf", "4/0", "abc", "", "4/255/2", "0,5"])
def test_an_eps_that_is_no_number_is_refused_with_two_examples(text: str) -> None:
    with pytest.raises(ValueError, match=rf"^eps is '{text}'; write a fraction such as 4/255 or a number such as"):
        parse_eps(text)


@pytest.mark.parametrize("eps", [4, 0, -0.1, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_threats_refuse_a_bad_eps(eps: float, norm: str) -> None:
    if (eps, norm) == (4, "l2"):
        assert Threat(eps=eps, norm=norm).eps == 4  # an l2 ball may be longer than an edge of the box
        return
    with pytest.raises(ValueError, match=rf"^eps is {eps:g}; .*write 4/255, not 4\.$"):
        Threat(eps=eps, norm=norm)


def test_an_infinite_eps_is_refused_without_a_box_too() -> None:
    with pytest.raises(ValueError, match=r"^eps is inf; "):
        Threat(eps=math.inf, **FREE)


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (0.5, 0.5), (math.nan, 1.0)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_empty_box_is_refused(low: float, high: float, norm: str) -> None:
    with pytest.raises(ValueError, match=r"^the box is \[.*\]; low must be below high: change one of them\.$"):
        Threat(eps=0.1, norm=norm, low=low, high=high)


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^norm is 'l1'; linf and l2 are supported: choose one\.$"):
        Threat(eps=0.1, norm="l1")  # type: ignore[arg-type]
