"""Small hand-made pictures: dumbbells before and after an attack, and one scale: dark is broken."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from robustree.taxonomy import colours

Figure = Mapping[str, Any] | None


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share in [0, 1] as text, "41.7 %" with a no-break space; an en dash for None."""
    return "–" if value is None else f"{bare(value, digits)}\N{NO-BREAK SPACE}%"


def bare(value: float, digits: int = 0) -> str:
    """Return a share in [0, 1] as text in percent, without the sign."""
    return f"{100 * value:.{digits}f}"


def points(value: float) -> str:
    """Return a difference of shares as signed percentage points, "+6.1"."""
    return f"{100 * value:+z.1f}".replace("-", "−")


def broken_colour(share: float) -> tuple[str, str]:
    """Return (background, text) as #rrggbb for a share of broken decisions in [0, 1]: dark means broken.

    The scale of the tree drawings turned round, so that one colour means one thing on the whole page.
    """
    colour = colours.scale(1 - share)
    return colours.code(colour), colours.text_on(colour)


def dumbbell(clean: Figure, worst: Figure, aimed: Figure, chance: float, name: str) -> str:
    """Return one row of the level chart: hollow dot clean, full dot worst case, tick the aimed attack.

    The x axis is a share from 0 to 100 % of the width, so the picture stretches without scaling its text.
    Thin lines are 95 % intervals; the dotted line is chance. Raises nothing: a missing figure is not drawn.
    """
    said = f"{name}: clean {_said(clean)}, worst case {_said(worst)}, aimed attack {_said(aimed)}"
    parts = [f'<svg class="dumbbell" width="100%" height="24" role="img" aria-label="{escape(said)}">']
    parts.append(f"<title>{escape(said)}</title>")
    for share in (0, 25, 50, 75, 100):
        parts.append(f'<line class="grid" x1="{share}%" x2="{share}%" y1="0" y2="24"/>')
    parts.append(f'<line class="chance" x1="{_at(chance)}" x2="{_at(chance)}" y1="0" y2="24"/>')
    if clean and worst:
        parts.append(f'<line class="loss" x1="{_at(worst["value"])}" x2="{_at(clean["value"])}" y1="12" y2="12"/>')
    for figure, height in ((clean, 6), (worst, 18)):
        if figure:
            ends = f'x1="{_at(figure["low"])}" x2="{_at(figure["high"])}"'
            parts.append(f'<line class="interval" {ends} y1="{height}" y2="{height}"/>')
    if aimed:
        parts.append(f'<line class="aimed" x1="{_at(aimed["value"])}" x2="{_at(aimed["value"])}" y1="6" y2="18"/>')
    if clean:
        parts.append(f'<circle class="clean" cx="{_at(clean["value"])}" cy="12" r="5"/>')
    if worst:
        parts.append(f'<circle class="worst" cx="{_at(worst["value"])}" cy="12" r="5.5"/>')
    return "".join(parts) + "</svg>"


def fates(level: Mapping[str, Any], name: str) -> str:
    """Return one stacked bar of `breaking.cascade_figures`: standing, broken by each stage (the last one first), and
    wrong before any attack.

    Read from the left, the border after each stage is the accuracy before it. Parts of 6 % and more carry their number.
    """
    stages = list(level["broken"])
    parts = [("standing", level["standing"], "stands")]
    parts += [(f"by {stage}", level["broken"][stage], stages.index(stage)) for stage in reversed(stages)]
    parts += [("by none on record", level["unnamed"], "unnamed"), ("wrong before", level["wrong"], "before")]
    shown = [(what, figure, kind) for what, figure, kind in parts if figure and figure["count"]]
    said = f"{name}: " + ", ".join(f"{what} {percent(figure['value'])}" for what, figure, _ in shown)
    drawn = [f'<svg class="fates" width="100%" height="17" role="img" aria-label="{escape(said)}">']
    drawn.append(f"<title>{escape(said)}</title>")
    start = 0.0
    for what, figure, kind in shown:
        share = figure["value"]
        fill, ink = stage_colour(kind, len(stages)) if isinstance(kind, int) else ("", "")
        style = f' style="fill:{fill}"' if fill else f' class="{kind}"'
        tip = f"{what}: {figure['count']} of {figure['n']}, {percent(share)}"
        drawn.append(
            f'<rect x="{_at(start)}" width="{_at(share)}" height="20"{style}><title>{escape(tip)}</title></rect>'
        )
        if share >= 0.06:
            colour = f' style="fill:{ink}"' if ink else ""
            drawn.append(
                f'<text x="{_at(start + share / 2)}" y="12.5" text-anchor="middle"{colour}>{bare(share)}</text>'
            )
        start += share
    return "".join(drawn) + "</svg>"


def stage_colour(number: int, stages: int) -> tuple[str, str]:
    """Return (background, text) of a cascade's stage: the first one, which breaks most, is the darkest."""
    return broken_colour(1 - 0.8 * number / max(1, stages))


def _at(share: float) -> str:
    return f"{100 * share:.2f}%"


def _said(figure: Figure) -> str:
    if figure is None:
        return "not measured"
    return f"{percent(figure['value'])} ({percent(figure['low'])} to {percent(figure['high'])})"


def scale_legend() -> str:
    """Return the shared colour scale as an SVG strip from 0 to 100 % broken."""
    steps = "".join(
        f'<rect x="{5 * k}%" width="5.2%" height="12" fill="{broken_colour((k + 0.5) / 20)[0]}"/>' for k in range(20)
    )
    said = "Colour scale from light, 0 % of decisions broken, to dark, 100 % broken"
    return (
        f'<svg class="scale" width="100%" height="12" role="img" aria-label="{said}"><title>{said}</title>{steps}</svg>'
    )
