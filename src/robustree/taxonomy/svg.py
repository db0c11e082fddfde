"""The few SVG elements of a tree drawing, as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations, pairwise
from xml.sax.saxutils import escape

from robustree.taxonomy import colours

LINE = 1.12
"""The distance between lines of text in font sizes."""

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """Text as XML content: markup escaped, characters that XML cannot hold replaced by U+FFFD."""
    return escape(_FORBIDDEN.sub("\ufffd", text), {'"': "&quot;"})


def text(
    place: tuple[float, float],
    degrees: float,
    font: float,
    ink: str,
    words: str,
    anchor: str,
    weight: str = "",
) -> str:
    """A line of text at (x, y), turned clockwise by `degrees`, centred across its direction on the point."""
    return block(place, degrees, font, ink, (words,), anchor, weight)


def block(
    place: tuple[float, float],
    degrees: float,
    font: float,
    ink: str,
    lines: Sequence[str],
    anchor: str,
    weight: str = "",
) -> str:
    """Lines of text as `text` writes one, `LINE` font sizes apart and together centred on the point."""
    bold = f' font-weight="{weight}"' if weight else ""
    return "\n".join(
        f'<text transform="translate({place[0]:.2f} {place[1]:.2f}) rotate({degrees:.2f})" '
        f'y="{font * (0.35 + LINE * (number - (len(lines) - 1) / 2)):.2f}" font-size="{font:g}" fill="{ink}" '
        f'text-anchor="{anchor}"{bold} pointer-events="none">{clean(line)}</text>'
        for number, line in enumerate(lines)
    )


def broken(words: str, count: int) -> tuple[str, ...]:
    """Text broken at spaces into at most `count` lines, the longest of them as short as possible."""
    parts = words.split(" ")
    count = min(count, len(parts))
    ways = (
        tuple(" ".join(parts[start:end]) for start, end in pairwise((0, *breaks, len(parts))))
        for breaks in combinations(range(1, len(parts)), count - 1)
    )
    return min(ways, key=lambda lines: max(map(len, lines)))


def caption(lines: list[str], left: float, bottom: float, font: float) -> list[str]:
    """Lines of grey text above one another, the last on `bottom`."""
    ink = colours.code(colours.NEUTRAL)
    first = bottom - 1.35 * font * (len(lines) - 1)
    return [text((left, first + 1.35 * font * n), 0, font, ink, line, "start") for n, line in enumerate(lines)]


def scale_bar(right: float, bottom: float, width: float, font: float) -> list[str]:
    """The colour scale from 0 to 1 with its ends named."""
    ink = colours.code(colours.NEUTRAL)
    steps = 24
    step = width / steps
    left = right - width
    bars = [
        f'<rect x="{left + n * step:.2f}" y="{bottom - 8:.2f}" width="{step + 0.3:.2f}" height="8" '
        f'fill="{colours.code(colours.scale((n + 0.5) / steps))}"/>'
        for n in range(steps)
    ]
    above = bottom - 8 - 0.8 * font
    return [
        *bars,
        text((left, above), 0, font, ink, "0", "start"),
        text((right, above), 0, font, ink, "1", "end"),
    ]
