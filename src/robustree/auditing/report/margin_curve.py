"""Theorem 1 as a picture: how the largest two-class margin grows with depth, and what it does not promise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

WIDTH, HEIGHT = 440, 280
LEFT, RIGHT, TOP, BOTTOM = 34, 14, 34, 44
CEILING = 16.0
"""The largest margin drawn, in units of lambda."""


def ball_margin(radius: float) -> float:
    """Return m / lambda = 4 artanh(eta) of hyperbolic logits at ball radius 0 <= eta < 1 (r = 1; Theorem 1)."""
    return 4 * math.atanh(radius)


def dot_margin(radius: float) -> float:
    """Return m / lambda = 2 eta^2 of dot-product logits when every norm is eta."""
    return 2 * radius * radius


def draw_margin_in_ball() -> str:
    """Return the SVG of both margins against the radius eta in the Poincare ball of curvature -1."""
    stops = [math.tanh(k / 50) for k in range(201)]
    curves = (
        ("hyperbolic", "−λ·d", _points(stops, ball_margin, 1.0), (0.86, 8.4, "end")),
        ("dot", "λ·⟨x, y⟩", _points(stops, dot_margin, 1.0), (0.97, 2.7, "end")),
    )
    title = "Largest margin against the radius in the ball: unbounded for the hyperbolic logit, at most 2 for the dot"
    return _panel(title, "radius η in the ball (boundary at 1)", curves, (0.0, 0.25, 0.5, 0.75, 1.0), 1.0)


def draw_margin_in_tangent_space() -> str:
    """Return the SVG of the same margins against the tangent norm rho = artanh(eta), and of <v, w> itself."""
    stops = [k / 50 for k in range(201)]
    curves = (
        ("hyperbolic", "−λ·d: 4ρ", _points(stops, lambda rho: 4 * rho, 4.0), (2.95, 10.2, "start")),
        (
            "dot",
            "λ·⟨x, y⟩ in the ball",
            _points(stops, lambda rho: dot_margin(math.tanh(rho)), 4.0),
            (3.9, 2.7, "end"),
        ),
        ("tangent", "λ·⟨v, w⟩: 2ρ²", _points(stops, dot_margin, 4.0), (2.32, 13.0, "end")),
    )
    title = "The same margins against the tangent norm: the hyperbolic margin is a straight line"
    return _panel(title, "tangent norm ρ (what the network outputs)", curves, (0.0, 1.0, 2.0, 3.0, 4.0), 4.0)


def _points(stops: Sequence[float], margin: Callable[[float], float], widest: float) -> str:
    inside = [(x, margin(x)) for x in stops if margin(x) <= CEILING]
    return " ".join(f"{_x(x, widest):.1f},{_y(y):.1f}" for x, y in inside)


def _x(value: float, widest: float) -> float:
    return LEFT + value / widest * (WIDTH - LEFT - RIGHT)


def _y(margin: float) -> float:
    return HEIGHT - BOTTOM - margin / CEILING * (HEIGHT - TOP - BOTTOM)


def _panel(
    title: str,
    axis: str,
    curves: Sequence[tuple[str, str, str, tuple[float, float, str]]],
    ticks: Sequence[float],
    widest: float,
) -> str:
    parts = [
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
    ]
    for margin in (0, 4, 8, 12, 16):
        y = _y(margin)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{margin}</text>')
    for tick in ticks:
        x = _x(tick, widest)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    for kind, name, points, (at_x, at_y, anchor) in curves:
        parts.append(f'<polyline class="{kind}" points="{points}"/>')
        parts.append(
            f'<text class="name {kind}" x="{_x(at_x, widest):.1f}" y="{_y(at_y):.1f}" '
            f'text-anchor="{anchor}">{escape(name)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(axis)}</text>')
    parts.append(f'<text class="axis" x="{LEFT - 26}" y="{TOP - 18}">margin / λ</text></svg>')
    return "".join(parts)
