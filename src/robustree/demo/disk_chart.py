"""The disk as SVG: texts as dots in the colours of the tree drawing, depth as rings, an image's way as a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

from torch import Tensor

from robustree.auditing.audit import Subject
from robustree.demo.decisions import Decisions, levels_of
from robustree.demo.disk import Mark, Plane, distances, find_plane
from robustree.taxonomy import Forest, colours
from robustree.taxonomy.drawing import layout

SIZE, CENTRE = 560, 280.0
MOST_RINGS, RING_STEPS = 4, (0.1, 0.2, 0.5, *(2.0**power for power in range(20)))


@dataclass(frozen=True, kw_only=True)
class Disk:
    """One hyperbolic model over one tree, ready to be drawn."""

    subject: Subject
    forest: Forest
    tree: str
    plane: Plane
    marks: tuple[Mark, ...]

    @cached_property
    def reach(self) -> float:
        """The radius of the part of the unit disk that is shown."""
        return min(1.0, 1.22 * max(math.hypot(mark.x, mark.y) for mark in self.marks))

    @cached_property
    def texts(self) -> str:
        """The part of the drawing that no image changes: rings, texts and the names of the coarsest."""
        return "".join([*_rings(self), *_texts(self)])


def build_disk(subject: Subject, forest: Forest, tree: str) -> Disk:
    """The disk of a model.

    Raises:
        ValueError: its head is not hyperbolic.
    """
    plane, marks = find_plane(subject.model, forest, tree)
    return Disk(subject=subject, forest=forest, tree=tree, plane=plane, marks=marks)


def draw_disk(disk: Disk, way: Sequence[Tensor], clean: Decisions, now: Decisions | None) -> str:
    """The disk as HTML: the image's points (D,) from the clean one on, the chosen nodes, and what is true of it all."""
    return (
        f'<div class="disk">{_svg(disk, way, clean, now)}<div>{_about(disk)}{_table(disk, way, clean, now)}</div></div>'
    )


def _svg(disk: Disk, way: Sequence[Tensor], clean: Decisions, now: Decisions | None) -> str:
    names, places = disk.forest.names, {mark.node: mark for mark in disk.marks}
    said = f"Texts of the tree {escape(disk.tree)} and the image in a plane of the ball of {escape(disk.subject.name)}"
    parts = [f'<svg viewBox="0 0 {SIZE} {SIZE}" role="img" aria-label="{said}">', disk.texts]
    before = clean["leaf"].node
    parts.append(_ringed(disk, places[before], names[before], "was"))
    if now is not None and now["leaf"].node != before:
        after = now["leaf"].node
        parts.append(_ringed(disk, places[after], names[after], "now"))
    return "".join([*parts, _way(disk, way), "</svg>"])


def _texts(disk: Disk) -> list[str]:
    """Every text as a dot, then the names of the coarsest."""
    forest, fills = disk.forest, _fills(disk)
    top = set(levels_of(forest, disk.tree)[-1].nodes)
    parts = []
    for mark in disk.marks:
        kind, radius = ("inner", 3.6) if mark.node >= forest.leaf_count else ("leaf", 2.2)
        if mark.node in top:
            kind, radius = "top", 6.5
        x, y = _at(disk, mark.x, mark.y)
        tip = f"{forest.names[mark.node]}, depth {mark.depth:.2f}"
        parts.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fills[mark.node]}">'
            f"<title>{escape(tip)}</title></circle>"
        )
    return parts + [_label(disk, mark, forest.names[mark.node], "name") for mark in disk.marks if mark.node in top]


def _rings(disk: Disk) -> list[str]:
    root = disk.plane.curvature**0.5
    edge = f'<circle class="ball" cx="{CENTRE}" cy="{CENTRE}" r="{_scale(disk):.1f}"/>'
    parts = [edge] if disk.reach == 1 else []
    deepest = max(mark.depth for mark in disk.marks)
    apart = next(step for step in RING_STEPS if step * MOST_RINGS > deepest)
    for number in range(1, math.floor(deepest / apart) + 1):
        depth = apart * number
        radius = math.tanh(root * depth / 2) * _scale(disk)
        parts.append(f'<circle class="ring" cx="{CENTRE}" cy="{CENTRE}" r="{radius:.1f}"/>')
        parts.append(f'<text class="depth" x="{CENTRE}" y="{CENTRE - radius - 4:.1f}">depth {depth:g}</text>')
    return [*parts, f'<circle class="origin" cx="{CENTRE}" cy="{CENTRE}" r="2"/>']


def _fills(disk: Disk) -> dict[int, str]:
    """Every node in the colour of the group of the coarsest level that holds its wedge."""
    wedges = layout(disk.forest, disk.tree)
    depth = disk.forest.tree(disk.tree).depth
    groups = [wedge for wedge in wedges if wedge.inner_ring == depth]
    return {
        wedge.node: colours.code(colours.group(number, len(groups)))
        for wedge in wedges
        for number, group in enumerate(groups)
        if group.start <= wedge.middle < group.end
    }


def _label(disk: Disk, mark: Mark, name: str, kind: str) -> str:
    x, y = _at(disk, mark.x, mark.y)
    right = x < CENTRE + 120
    return (
        f'<text class="{kind}" x="{x + (10 if right else -10):.1f}" y="{y + 4:.1f}" '
        f'text-anchor="{"start" if right else "end"}">{escape(name)}</text>'
    )


def _ringed(disk: Disk, mark: Mark, name: str, kind: str) -> str:
    x, y = _at(disk, mark.x, mark.y)
    return f'<circle class="chosen {kind}" cx="{x:.1f}" cy="{y:.1f}" r="6"/>{_label(disk, mark, name, kind)}'


def _way(disk: Disk, way: Sequence[Tensor]) -> str:
    places = [_at(disk, x, y) for point in way for x, y in disk.plane.project(point[None]).tolist()]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(f'<circle class="step" cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in places[1:-1])
    (x, y), (now_x, now_y) = places[0], places[-1]
    moved = f'<circle class="image" cx="{now_x:.1f}" cy="{now_y:.1f}" r="7"/>' if len(places) > 1 else ""
    return (
        f'<g class="moving"><polyline points="{line}"/>{dots}<circle class="image clean" cx="{x:.1f}" cy="{y:.1f}" '
        f'r="7"/>{moved}</g>'
    )


def _scale(disk: Disk) -> float:
    return (CENTRE - 6) / disk.reach


def _at(disk: Disk, x: float, y: float) -> tuple[float, float]:
    return CENTRE + x * _scale(disk), CENTRE - y * _scale(disk)


def _about(disk: Disk) -> str:
    plane, tree = disk.plane, disk.forest.tree(disk.tree)
    count = len(levels_of(disk.forest, disk.tree)[-1].nodes)
    return (
        '<p class="about">The distance from the centre is the true depth. Directions are those of one plane out of '
        f"{plane.axes.shape[1]} dimensions, seen from the mean of each level and chosen by the {count} texts of "
        f"{escape(tree.name)}/{tree.depth}: it holds {100 * plane.top_share:.0f} % of what tells these apart, and "
        f"{100 * plane.share:.0f} % over all texts of the tree. So nearness here is not nearness in the ball; the "
        "table has the true distances.</p>"
    )


def _table(disk: Disk, way: Sequence[Tensor], clean: Decisions, now: Decisions | None) -> str:
    """True distances of the clean and of the attacked image to the nodes that were and are chosen at each level."""
    lines = []
    for cut in reversed(levels_of(disk.forest, disk.tree)):
        said = [clean, now] if now else [clean]
        chosen = list(dict.fromkeys(decisions[cut.label].node for decisions in said))
        first = distances(disk.subject.model, way[0], chosen)
        last = distances(disk.subject.model, way[-1], chosen)
        for node, near, far in zip(chosen, first, last, strict=True):
            attacked = f"<td class='n'>{far:.3f}</td>" if now else ""
            lines.append(
                f'<tr><th scope="row">{escape(cut.label)}</th><td>{escape(disk.forest.names[node])}</td>'
                f"<td class='n'>{near:.3f}</td>{attacked}</tr>"
            )
    heads = '<th scope="col">Level</th><th scope="col">Chosen</th><th scope="col" class="n">Clean</th>'
    heads += '<th scope="col" class="n">Attacked</th>' if now else ""
    return (
        f'<div class="scroll" tabindex="0"><table><caption>Distance of the image in the ball of '
        f"{escape(disk.subject.name)}</caption><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
