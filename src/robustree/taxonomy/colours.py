"""Colours of tree drawings: readable on a white and on a black page, and with colour-blind eyes."""

from __future__ import annotations

Colour = tuple[int, int, int]

NEUTRAL: Colour = (118, 118, 118)
"""A grey with a contrast of 4.5 : 1 against white and of 4.6 : 1 against black, for text on any page."""

HIGHLIGHT: Colour = (230, 0, 76)
"""The outline of highlighted nodes, a red that no fill has."""

_SCALE: tuple[Colour, ...] = (
    (72, 44, 122),
    (61, 76, 138),
    (48, 106, 142),
    (37, 132, 142),
    (32, 160, 134),
    (62, 188, 115),
    (122, 209, 81),
    (189, 223, 38),
    (253, 231, 37),
)
_GROUPS: tuple[Colour, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
)


def scale(value: float) -> Colour:
    """The colour of a value in [0, 1]: from violet through green to yellow, ever lighter."""
    position = value * (len(_SCALE) - 1)
    low = min(int(position), len(_SCALE) - 2)
    return mix(_SCALE[low], _SCALE[low + 1], position - low)


def group(number: int, groups: int) -> Colour:
    """The colour of one of several groups around a circle; neighbours differ, the last and the first too."""
    palette = len(_GROUPS)
    if number == groups - 1 and number % palette == 0 and groups > 1:
        return _GROUPS[palette // 2]
    return _GROUPS[number % palette]


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour that is `share` of the way from the first to the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def text_on(background: Colour) -> str:
    """The readable one of near-black and white on a background."""

    def linear(channel: int) -> float:
        part = channel / 255
        return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(channel) for channel in background)
    return "#111111" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.19 else "#ffffff"


def code(colour: Colour) -> str:
    """The colour as #rrggbb."""
    return "#" + "".join(f"{channel:02x}" for channel in colour)
