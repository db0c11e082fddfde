"""Robust accuracy over eps and over steps, as small line charts whose lines carry their names.

A chart stretches with the page while its text keeps its size: shapes are drawn in a square of 100 by 100 that is pulled
to the width, and whatever must not be pulled stands beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from robustree.auditing.report.charts import percent

HEIGHT, TOP, BOTTOM, RIGHT = 180, 8, 34, 92
"""Pixels: of a chart, above and below its lines, and of the names at its right side."""
LETTERS, LINE = 13, 12.0
"""How much of a name a label shows, and the height of a line of text."""
Points = Sequence[Mapping[str, Any]]


class Line(NamedTuple):
    """One model's curve: its name ("hrft" or "hrft (cosine)"), its number (which gives the colour), its points."""

    name: str
    number: int
    points: Points


def draw_eps(title: str, lines: Sequence[Line], *, norm: str, audited: float, chance: float | None) -> str:
    """Robust accuracy against eps, as HTML; a thin line marks the audit's own eps."""
    unit = 255 if norm == "linf" else 1
    ticks = [(point["eps"], f"{round(point['eps'] * unit, 3):g}") for point in lines[0].points]
    largest = ticks[-1][0]
    axis = "ε in 1/255" if norm == "linf" else "ε"
    return _chart(title, lines, "eps", lambda eps: 100 * eps / largest, ticks, axis, chance, audited)


def draw_steps(title: str, lines: Sequence[Line], *, chance: float | None) -> str:
    """Robust accuracy against the steps of the attack, on a logarithmic axis, as HTML."""
    ticks = [(point["steps"], f"{point['steps']}") for point in lines[0].points]
    first, last = math.log(ticks[0][0]), math.log(ticks[-1][0])

    def place(steps: float) -> float:
        return 100 * (math.log(steps) - first) / (last - first) if last > first else 50.0

    return _chart(title, lines, "steps", place, ticks, "steps", chance, None)


def _chart(
    title: str,
    lines: Sequence[Line],
    axis: str,
    at: Callable[[float], float],
    ticks: Sequence[tuple[float, str]],
    axis_name: str,
    chance: float | None,
    mark: float | None,
) -> str:
    said = f"{title}: " + "; ".join(
        f"{line.name} {percent(line.points[0]['value'], 0)} to {percent(line.points[-1]['value'], 0)}" for line in lines
    )
    numbers = "".join(
        f'<text x="20" y="{_y(share / 100) + 4:.1f}" text-anchor="end">{share}</text>' for share in (0, 50, 100)
    )
    plot = [_rule("grid", _y(share / 100)) for share in (0, 25, 50, 75, 100)]
    if chance is not None:
        plot.append(_rule("chance", _y(chance)))
    if mark is not None and ticks[0][0] <= mark <= ticks[-1][0]:
        x = f"{at(mark):.2f}%"
        plot.append(f'<line class="audited" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    shapes = "".join([*(_band(line, axis, at) for line in lines), *(_line(line, axis, at) for line in lines)])
    plot.append(
        f'<svg aria-hidden="true" y="{TOP}" width="100%" height="{HEIGHT - TOP - BOTTOM}" viewBox="0 0 100 100" '
        f'preserveAspectRatio="none">{shapes}</svg>'
    )
    plot += [_dots(line, axis, at) for line in lines] + _ticks(ticks, at)
    plot.append(f'<text x="50%" y="{HEIGHT - 4}" text-anchor="middle">{axis_name}</text>')
    return (
        f'<div class="lines" role="img" aria-label="{escape(said)}">'
        f'<svg aria-hidden="true" width="26" height="{HEIGHT}">{numbers}</svg>'
        f'<svg aria-hidden="true" width="100%" height="{HEIGHT}">{"".join(plot)}</svg>'
        f'<svg aria-hidden="true" width="{RIGHT}" height="{HEIGHT}">{"".join(_labels(lines))}</svg></div>'
    )


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _rule(kind: str, y: float) -> str:
    return f'<line class="{kind}" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>'


def _ticks(ticks: Sequence[tuple[float, str]], at: Callable[[float], float]) -> list[str]:
    """The axis' numbers; one that would touch its left neighbour on a narrow chart (110 pixels) is left out."""
    shown, free = [], -math.inf
    for value, label in ticks:
        middle, half = at(value), 100 * 3.6 * len(label) / 110
        if middle - half >= free:
            shown.append(f'<text x="{middle:.2f}%" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{label}</text>')
            free = middle + half
    return shown


def _band(line: Line, axis: str, at: Callable[[float], float]) -> str:
    over = [f"{at(point[axis]):.2f},{100 - 100 * point['high']:.2f}" for point in line.points]
    under = [f"{at(point[axis]):.2f},{100 - 100 * point['low']:.2f}" for point in reversed(line.points)]
    return f'<polygon class="band s{line.number % 8}" points="{" ".join(over + under)}"/>'


def _line(line: Line, axis: str, at: Callable[[float], float]) -> str:
    points = " ".join(f"{at(point[axis]):.2f},{100 - 100 * point['value']:.2f}" for point in line.points)
    return f'<polyline class="s{line.number % 8}" points="{points}"/>'


def _dots(line: Line, axis: str, at: Callable[[float], float]) -> str:
    """The measured points; pointing at one shows its numbers."""
    dots = []
    for point in line.points:
        where = f"{point[axis]} steps" if axis == "steps" else f"ε = {point[axis]:.4g}"
        figure = f"{percent(point['value'])} ({percent(point['low'])} to {percent(point['high'])})"
        dots.append(
            f'<circle cx="{at(point[axis]):.2f}%" cy="{_y(point["value"]):.1f}" r="2.8">'
            f"<title>{escape(line.name)}, {where}: {figure}</title></circle>"
        )
    return f'<g class="s{line.number % 8}">{"".join(dots)}</g>'


def _labels(lines: Sequence[Line]) -> list[str]:
    """Names at the ends of their lines, moved apart where lines end close together."""
    order = sorted(lines, key=lambda line: (-line.points[-1]["value"], line.number))
    heights = [LINE * (2 if " (" in line.name else 1) + 2 for line in order]
    top, bottom = 0.0, HEIGHT - BOTTOM + LINE
    squeeze = min(1.0, (bottom - top) / sum(heights))
    middles: list[float] = []
    for line, height in zip(order, heights, strict=True):
        middles.append(max(top + height * squeeze / 2, _y(line.points[-1]["value"])))
        top = middles[-1] + height * squeeze / 2
    for number in reversed(range(len(order))):
        half = heights[number] * squeeze / 2
        middles[number] = min(middles[number], bottom - half)
        bottom = middles[number] - half
    return [_label(line, middle) for line, middle in zip(order, middles, strict=True)]


def _label(line: Line, middle: float) -> str:
    model, _, head = line.name.partition(" (")
    style = f's{line.number % 8}"'
    end = _y(line.points[-1]["value"])
    tie = f'<line class="tie {style} x1="4" x2="11" y1="{end:.1f}" y2="{middle:.1f}"/>'
    name = f'<text class="name {style} x="14" y="{middle + 4 - (LINE / 2 if head else 0):.1f}">{_short(model)}'
    if head:
        name += f'<tspan class="head" x="14" dy="{LINE}">{_short(head.rstrip(")"))}</tspan>'
    return f"{tie}{name}</text>"


def _short(name: str) -> str:
    return escape(name if len(name) <= LETTERS else name[: LETTERS - 1] + "…")
