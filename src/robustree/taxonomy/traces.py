"""Ways through a tree, as lines over its drawing: which node a model chose at every level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from robustree.taxonomy import svg

_BEND = 0.06
"""The largest turn (radians) that one straight piece of a line makes around the centre."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One node at every level, leaf first, drawn as a line with a dot in each of their wedges.

    Nodes need not lie below one another. `colour` is any colour of CSS ("#0b6fa4", "var(--wrong)"), `name` the tooltip.
    """

    name: str
    nodes: tuple[int, ...]
    colour: str
    dashed: bool = False


def draw_trace(trace: Trace, places: Sequence[tuple[float, float]], centre: float, size: float) -> str:
    """A trace through polar `places` (radius, angle clockwise from the top), leaf first, as an SVG group.

    From one place to the next the line winds the shorter way around the centre. `size` is the radius of the dots.
    """
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_point(centre, *place) for place in _winding(places)))
    dash = f' stroke-dasharray="{size:g} {size:g}"' if trace.dashed else ""
    dots = []
    for number, place in enumerate(places):
        x, y = _point(centre, *place)
        paint = f'fill="none" stroke="{trace.colour}" stroke-width="1.5"' if trace.dashed else f'fill="{trace.colour}"'
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size if number else 1.4 * size:g}" {paint}/>')
    return (
        f'<g class="trace" pointer-events="none"><title>{svg.clean(trace.name)}</title>'
        f'<polyline points="{line}" fill="none" stroke="{trace.colour}" stroke-width="{0.6 * size:g}" '
        f'stroke-linejoin="round" stroke-linecap="round"{dash}/>{"".join(dots)}</g>'
    )


def _winding(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    found = list(places[:1])
    for (radius, angle), (next_radius, next_angle) in pairwise(places):
        turn = math.remainder(next_angle - angle, math.tau)
        pieces = max(1, math.ceil(abs(turn) / _BEND))
        for piece in range(1, pieces + 1):
            share = piece / pieces
            found.append((radius + share * (next_radius - radius), angle + share * turn))
    return found


def _point(centre: float, radius: float, angle: float) -> tuple[float, float]:
    return centre + radius * math.sin(angle), centre - radius * math.cos(angle)
