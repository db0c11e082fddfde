"""A label tree as one SVG drawing: the rings are the levels, the coarsest innermost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robustree.taxonomy import colours, svg
from robustree.taxonomy.forest import Forest
from robustree.taxonomy.outline import outline
from robustree.taxonomy.traces import Trace, draw_trace
from robustree.taxonomy.tree import Tree

__all__ = ["Wedge", "draw_tree", "layout", "outline"]

_LARGEST_FONT, _SMALLEST_INNER_FONT = 13.0, 8.0
_PLAIN_WIDTH = 900
"""The width for which the font sizes are meant: a wider drawing has larger letters too."""
_LEGIBLE_FONT = 7.0
_MOST_LINES = 3
_SMALLEST_FONT = 5.0
_LETTER = 0.56
"""The width of a letter in font sizes: an estimate for common sans-serif fonts, on the safe side."""
_FADED = 0.22
"""The opacity of nodes that no trace passes."""


@dataclass(frozen=True)
class Wedge:
    """The ring sector of a node: angles in radians clockwise from the top, and the rings that it spans.

    Ring 0 is the outermost, the leaves; a node that stands on several levels spans their rings.
    """

    node: int
    start: float
    end: float
    outer_ring: int
    inner_ring: int

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


@dataclass(frozen=True)
class _Circle:
    """Radii in pixels: `radii[ring]` is the outer edge of a ring, `radii[-1]` the edge of the hole."""

    centre: float
    radii: tuple[float, ...]
    leaf_font: float


def draw_tree(
    forest: Forest,
    tree_name: str,
    colour: Mapping[int, float] | None = None,
    labels: Mapping[int, str] | None = None,
    width: int = 900,
    highlight: Sequence[int] = (),
    traces: Sequence[Trace] = (),
) -> str:
    """Draw a tree as a square SVG of `width` pixels, the same text for the same arguments.

    One wedge stands for every node of the levels 0..L. `colour` gives values in [0, 1] for nodes (an empty
    frame without one; without a mapping, colours show the coarsest groups), `labels` replaces names, and
    `highlight` outlines nodes. `traces` are drawn over the tree, the last on top, and fade all nodes that they do not
    pass. Labels are written where they fit; tooltips hold name, value, level and size.
    Raises ValueError for a node outside the drawing, a trace that does not name one node of every level, a value
    outside [0, 1], or a width under 200.
    """
    if width < 200:
        raise ValueError(f"the width is {width} pixels, but a tree needs at least 200.")
    tree = forest.tree(tree_name)
    wedges = layout(forest, tree_name)
    drawn = {wedge.node for wedge in wedges}
    for node in [*(colour or ()), *(labels or ()), *highlight]:
        if node not in drawn:
            raise ValueError(f"node {node} is on no level of tree {tree_name!r}: give nodes of its levels.")
    for node, value in (colour or {}).items():
        if not 0 <= value <= 1:
            raise ValueError(f"the colour value of node {node} is {value}, but must be in [0, 1].")
    texts = {node: forest.names[node] for node in drawn} | dict(labels or {})
    circle = _circle(forest, tree, texts, width)
    fills = _fills(tree, wedges, colour)
    outlined, passed = set(highlight), {node for trace in traces for node in trace.nodes}
    lines = [
        draw_trace(trace, _places(forest, tree, circle, wedges, trace), circle.centre, max(2.5, width / 130))
        for trace in traces
    ]
    title = svg.clean(f"Label tree {tree_name}: {forest.leaf_count} leaves, {tree.depth} levels")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{width}" '
        f'viewBox="0 0 {width} {width}" role="img" font-family="Helvetica, Arial, sans-serif">',
        f"<title>{title}</title>",
    ]
    for wedge in sorted(wedges, key=lambda wedge: wedge.node in outlined):
        paint = _paint(fills.get(wedge.node), outlined=wedge.node in outlined)
        if traces and wedge.node in fills and wedge.node not in passed:
            paint += f' fill-opacity="{_FADED}"'
        tooltip = svg.clean(_tooltip(forest, tree, wedge, texts[wedge.node], colour))
        parts.append(
            f'<path class="wedge" data-node="{wedge.node}" d="{_sector(circle, wedge)}" {paint}>'
            f"<title>{tooltip}</title></path>"
        )
    for wedge in wedges:
        fill = fills.get(wedge.node)
        faded = bool(traces) and wedge.node not in passed
        ink = colours.code(colours.NEUTRAL) if fill is None or faded else colours.text_on(fill)
        parts.append(_label(circle, wedge, texts[wedge.node], ink, forest.leaf_count))
    parts.extend([*lines, *_captions(forest, tree, circle, width, with_scale=colour is not None)])
    return "\n".join(part for part in [*parts, "</svg>"] if part) + "\n"


def legible_width(forest: Forest) -> int:
    """The width in pixels at which a drawing has room for the name of every leaf; at least 900."""
    longest = max(map(len, forest.leaves))
    half = _LEGIBLE_FONT * (forest.leaf_count / math.tau + longest * _LETTER) + 10
    return max(_PLAIN_WIDTH, 2 * math.ceil(half))


def layout(forest: Forest, tree_name: str) -> tuple[Wedge, ...]:
    """The wedges of a tree, coarse to fine and clockwise; every leaf has the same angle."""
    tree = forest.tree(tree_name)
    order = _leaf_order(tree)
    angle = math.tau / len(order)
    columns = [forest.path(tree_name, leaf) for leaf in order]
    spans: dict[int, list[int]] = {}
    for position, column in enumerate(columns):
        for ring, node in enumerate(column):
            span = spans.setdefault(node, [position, position, ring, ring])
            span[1] = position
            span[2] = min(span[2], ring)
            span[3] = max(span[3], ring)
    wedges = [
        Wedge(node, first * angle, (last + 1) * angle, outer, inner)
        for node, (first, last, outer, inner) in spans.items()
    ]
    return tuple(sorted(wedges, key=lambda wedge: (-wedge.inner_ring, wedge.start)))


def _leaf_order(tree: Tree) -> list[int]:
    """The leaves as a walk through the whole tree meets them, so that every node covers one arc."""
    order: list[int] = []
    waiting = list(reversed(tree.tops))
    while waiting:
        node = waiting.pop()
        if node < tree.leaf_count:
            order.append(node)
        waiting.extend(reversed(tree.children(node)))
    return order


def _circle(forest: Forest, tree: Tree, texts: Mapping[int, str], width: int) -> _Circle:
    """Leaf labels stand outside the circle when a leaf's share of its edge is high enough for a letter."""
    longest = max(len(texts[leaf]) for leaf in range(forest.leaf_count))
    half = width / 2
    font, radius = 0.0, half - 6
    for step in range(21, 9, -1):
        candidate = step / 2
        edge = half - 10 - longest * _LETTER * candidate
        if edge > 0.6 * half and math.tau * edge / forest.leaf_count >= candidate >= _SMALLEST_FONT:
            font, radius = candidate, edge
            break
    hole = 0.17 * radius
    leaf_ring = min(0.6 * (radius - hole) / (tree.depth + 0.6), 34.0)
    ring = (radius - hole - leaf_ring) / tree.depth
    return _Circle(half, (radius, *(radius - leaf_ring - ring * level for level in range(tree.depth + 1))), font)


def _fills(tree: Tree, wedges: Sequence[Wedge], colour: Mapping[int, float] | None) -> dict[int, colours.Colour]:
    if colour is not None:
        return {node: colours.scale(value) for node, value in colour.items()}
    coarsest = [wedge for wedge in wedges if wedge.inner_ring == tree.depth]
    fills: dict[int, colours.Colour] = {}
    for wedge in wedges:
        number = next(i for i, top in enumerate(coarsest) if top.start <= wedge.middle < top.end)
        lightness = 0.62 * (tree.depth - wedge.inner_ring) / tree.depth
        fills[wedge.node] = colours.mix(colours.group(number, len(coarsest)), (255, 255, 255), lightness)
    return fills


def _paint(fill: colours.Colour | None, *, outlined: bool) -> str:
    """A node without a value is an empty frame, which no colour of the scale can be taken for."""
    grey = colours.code(colours.NEUTRAL)
    paint = f'fill="{grey}" fill-opacity="0.08"' if fill is None else f'fill="{colours.code(fill)}"'
    if outlined:
        return f'{paint} stroke="{colours.code(colours.HIGHLIGHT)}" stroke-width="3" stroke-linejoin="round"'
    return paint if fill is not None else f'{paint} stroke="{grey}" stroke-width="0.5"'


def _edges(circle: _Circle, wedge: Wedge) -> tuple[float, float]:
    """The inner and the outer radius of a wedge, with a gap to its neighbours."""
    return circle.radii[wedge.inner_ring + 1] + 1, circle.radii[wedge.outer_ring]


def _point(circle: _Circle, radius: float, angle: float) -> tuple[float, float]:
    return circle.centre + radius * math.sin(angle), circle.centre - radius * math.cos(angle)


def _sector(circle: _Circle, wedge: Wedge) -> str:
    inner, outer = _edges(circle, wedge)
    gap = min(1.0, 0.12 * (wedge.end - wedge.start) * outer) / 2
    large = int(wedge.end - wedge.start > math.pi)
    corners = []
    for radius in (outer, inner):
        for angle in (wedge.start + gap / radius, wedge.end - gap / radius):
            x, y = _point(circle, radius, angle)
            corners.append(f"{x:.2f} {y:.2f}")
    return (
        f"M{corners[0]}A{outer:.2f} {outer:.2f} 0 {large} 1 {corners[1]}"
        f"L{corners[3]}A{inner:.2f} {inner:.2f} 0 {large} 0 {corners[2]}Z"
    )


def _places(
    forest: Forest, tree: Tree, circle: _Circle, wedges: Sequence[Wedge], trace: Trace
) -> list[tuple[float, float]]:
    """Where a trace passes each level: in the middle of the node's wedge, nearer to the rim than its label."""
    cuts = [forest.cut(tree.name, level) for level in range(tree.depth + 1)]
    if len(trace.nodes) != len(cuts) or any(node not in cut.nodes for node, cut in zip(trace.nodes, cuts, strict=True)):
        raise ValueError(
            f"the trace {trace.name!r} names the nodes {trace.nodes}; tree {tree.name!r} has {len(cuts)} levels: name "
            "one node of each, leaf first."
        )
    middles = {wedge.node: wedge.middle for wedge in wedges}
    return [
        (0.2 * circle.radii[ring + 1] + 0.8 * circle.radii[ring], middles[node])
        for ring, node in enumerate(trace.nodes)
    ]


def _tooltip(forest: Forest, tree: Tree, wedge: Wedge, text: str, colour: Mapping[int, float] | None) -> str:
    value = f": {colour[wedge.node]:.3f}" if colour is not None and wedge.node in colour else ""
    level = "leaf" if wedge.outer_ring == 0 else f"{tree.name}/{wedge.outer_ring}"
    if wedge.inner_ring != wedge.outer_ring:
        level = f"{level} to {tree.name}/{wedge.inner_ring}"
    size = len(tree.leaves_below(wedge.node))
    name = forest.names[wedge.node]
    shown = name if text == name else f"{name} ({text})"
    count = "" if wedge.node < forest.leaf_count else f", {size} {'leaf' if size == 1 else 'leaves'}"
    return f"{shown}{value} [{level}{count}]"


def _label(circle: _Circle, wedge: Wedge, text: str, ink: str, leaf_count: int) -> str:
    """The label of a wedge: outside for a leaf, else across or along the radius where its rectangle fits."""
    right = wedge.middle < math.pi
    radial = math.degrees(wedge.middle) - 90 + (0 if right else 180)
    if wedge.node < leaf_count:
        if not circle.leaf_font:
            return ""
        anchor = "start" if right else "end"
        place = _point(circle, circle.radii[0] + 4, wedge.middle)
        return svg.text(place, radial, circle.leaf_font, colours.code(colours.NEUTRAL), text, anchor)
    inner, outer = _edges(circle, wedge)
    middle = (inner + outer) / 2
    upright = math.cos(wedge.middle) >= 0
    tangent = math.degrees(wedge.middle) + (0 if upright else 180)
    slope = math.tan(min((wedge.end - wedge.start) / 2, 1.4))
    place = _point(circle, middle, wedge.middle)
    ways = [svg.broken(text, count) for count in range(1, 1 + min(_MOST_LINES, text.count(" ") + 1))]
    for font in _fonts(circle):
        for lines in ways:
            length = max(map(len, lines)) * _LETTER * font + 4
            height = len(lines) * svg.LINE * font
            low, high = middle - height / 2, math.hypot(middle + height / 2, length / 2)
            if low >= inner and high <= outer and length / 2 <= low * slope:
                return svg.block(place, tangent, font, ink, lines, "middle")
            if length + 2 <= outer - inner and height / 2 <= (middle - length / 2) * slope:
                return svg.block(place, radial, font, ink, lines, "middle")
    return ""


def _fonts(circle: _Circle) -> list[float]:
    """Font sizes of the inner labels, the largest first: from 13, or more in a wide drawing, down to 8."""
    fonts = [_LARGEST_FONT * max(1.0, 2 * circle.centre / _PLAIN_WIDTH)]
    while (smaller := fonts[-1] - round(fonts[-1] / _LARGEST_FONT)) >= _SMALLEST_INNER_FONT:
        fonts.append(smaller)
    return fonts


def _captions(forest: Forest, tree: Tree, circle: _Circle, width: int, *, with_scale: bool) -> list[str]:
    """The tree's name in the hole, its levels at the lower left, the colour scale at the lower right."""
    ink = colours.code(colours.NEUTRAL)
    room = 1.7 * circle.radii[-1]
    larger = max(1.0, width / _PLAIN_WIDTH)
    font = min(16.0 * larger, room / (_LETTER * 1.1 * len(tree.name)))
    above, below = (circle.centre, circle.centre - 8 * larger), (circle.centre, circle.centre + 9 * larger)
    parts = [svg.text(above, 0, font, ink, tree.name, "middle", "bold")]
    parts.append(svg.text(below, 0, 10 * larger, ink, f"{forest.leaf_count} leaves", "middle"))
    if width < 400:
        return parts
    counts = [len(forest.cut(tree.name, level).nodes) for level in range(tree.depth, 0, -1)]
    lines = [f"{tree.name}/{tree.depth - n}: {count} nodes" for n, count in enumerate(counts)]
    parts.extend(svg.caption([*lines, f"leaf: {forest.leaf_count} nodes"], 8, width - 10, 10 * larger))
    if with_scale:
        parts.extend(svg.scale_bar(width - 10, width - 10, 0.11 * width, 10 * larger))
    return parts
