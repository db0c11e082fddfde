"""Where each level of each model falls, as bars over eps, and what stands at one eps, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from robustree.auditing.audit import Subject
from robustree.auditing.report.page import budget
from robustree.demo.eps_sweep import GRID, Fall

TICKS = (0, 1, 2, 4, 8, 16)
HEIGHT = 20


def draw_falls(falls: Sequence[Fall], subjects: Sequence[Subject], eps: float) -> str:
    """The chart as HTML: one bar a level and model, from 0 to where it falls; a line at `eps`.

    The axis goes with the square root of eps, because most levels of a plain model fall below 2/255.
    """
    parts = [f'<p class="reading" role="status">{escape(reading(falls, subjects, eps))}</p>']
    ruler = "".join(f'<span style="left:{_at(tick / 255)}">{tick}</span>' for tick in TICKS)
    parts.append(
        f'<div class="row axis" aria-hidden="true"><span></span><div class="ruler">{ruler}</div><span></span></div>'
    )
    for level in dict.fromkeys(fall.level for fall in falls):
        parts.append(f'<div class="cut"><h4>{escape(level)}</h4>')
        for fall in falls:
            if fall.level == level:
                parts.append(_row(fall, subjects[fall.subject], eps))
        parts.append("</div>")
    return "".join(parts)


def reading(falls: Sequence[Fall], subjects: Sequence[Subject], eps: float) -> str:
    """How many levels of each model stand at an eps, as a sentence."""
    parts = []
    for number, subject in enumerate(subjects):
        own = [fall for fall in falls if fall.subject == number]
        if own:
            parts.append(f"{subject.name} ({subject.head}) {sum(fall.stands(eps) for fall in own)} of {len(own)}")
    return f"Levels that stand at ε = {budget(eps) if eps else '0'}: {', '.join(parts)}."


def _row(fall: Fall, subject: Subject, eps: float) -> str:
    said = _said(fall)
    stands = " fallen" if not fall.stands(eps) else ""
    end = _at(GRID[-1] if fall.eps is None else fall.eps)
    grid = "".join(
        f'<line class="grid" x1="{_at(tick / 255)}" x2="{_at(tick / 255)}" y1="0" y2="{HEIGHT}"/>' for tick in TICKS
    )
    bar = f'<rect class="bar" x="0" width="{end}" y="6" height="8" rx="2"/>' if fall.eps != 0 else ""
    tip = "" if fall.eps is None else f'<line class="fall" x1="{end}" x2="{end}" y1="3" y2="17"/>'
    here = f'<line class="here" x1="{_at(eps)}" x2="{_at(eps)}" y1="0" y2="{HEIGHT}"/>'
    label = f"{subject.name} ({subject.head}) at {fall.level}: {said}"
    return (
        f'<div class="row s{fall.subject % 8}{stands}"><span class="who">{escape(subject.name)} '
        f"<small>{escape(subject.head)}</small></span>"
        f'<svg width="100%" height="{HEIGHT}" role="img" aria-label="{escape(label)}">{grid}{bar}{tip}{here}</svg>'
        f'<span class="then">{said}</span></div>'
    )


def _said(fall: Fall) -> str:
    if fall.eps is None:
        return f"stands at {budget(GRID[-1])}"
    return f"falls at {budget(fall.eps)}" if fall.eps else "wrong before"


def _at(eps: float) -> str:
    return f"{100 * math.sqrt(eps / GRID[-1]):.2f}%"
