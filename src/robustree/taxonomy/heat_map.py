"""The comparison of every level of every tree with every other as one SVG heat map."""

from __future__ import annotations

from robustree.taxonomy import colours, svg
from robustree.taxonomy.comparing import normalised_mutual_information
from robustree.taxonomy.forest import Forest

_CELL = 44.0
_GAP = 8.0
"""Between trees."""
_FONT = 12.0
_LETTER = 0.56
"""The width of a letter in font sizes, on the safe side."""


def draw_heat_map(forest: Forest) -> str:
    """Draw the normalised mutual information of all levels of all trees: one cell a pair, from 0 to 1, as an SVG."""
    cuts = [cut for cut in forest.cuts() if cut.level]
    left = 12 + _LETTER * _FONT * max(len(cut.label) for cut in cuts)
    top = 12 + 0.75 * left  # the labels above the columns are slanted
    places: list[float] = []
    for number, cut in enumerate(cuts):
        new_tree = number > 0 and cuts[number - 1].tree != cut.tree
        places.append(places[-1] + _CELL + _GAP * new_tree if places else 0.0)
    side = places[-1] + _CELL
    width, height = left + side + 0.75 * left, top + side + 44
    ink = colours.code(colours.NEUTRAL)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" font-family="Helvetica, Arial, sans-serif">',
        f"<title>{svg.clean('Normalised mutual information of the levels of ' + _names(forest))}</title>",
    ]
    for row, first in zip(places, cuts, strict=True):
        y = top + row
        parts.append(svg.text((left - 8, y + _CELL / 2), 0, _FONT, ink, first.label, "end"))
        parts.append(svg.text((left + row + _CELL / 2 - 4, top - 8), -45, _FONT, ink, first.label, "start"))
        for column, second in zip(places, cuts, strict=True):
            value = normalised_mutual_information(first.of_leaf, second.of_leaf)
            fill = colours.scale(value)
            x = left + column
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{_CELL - 1:g}" height="{_CELL - 1:g}" '
                f'fill="{colours.code(fill)}"><title>{svg.clean(f"{first.label} and {second.label}: {value:.3f}")}'
                "</title></rect>"
            )
            place = (x + _CELL / 2, y + _CELL / 2)
            parts.append(svg.text(place, 0, _FONT, colours.text_on(fill), f"{value:.2f}", "middle"))
    parts.extend(svg.scale_bar(left + side, height - 10, min(120.0, side), 10))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _names(forest: Forest) -> str:
    return ", ".join(tree.name for tree in forest.trees)
