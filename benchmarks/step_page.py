"""step.md from step.json: seconds, operations and memory of every row, and the ratios within rounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from pages import put

PAGE = Path(__file__).with_name("step.md")
MARK = "<!-- tables: written by the script -->\n"
BARE, PIXELS = "encoder, forward and backward", "encoder, gradient of pixels"
TECOA, FARE, ONE, FIVE = "TeCoA", "FARE", "HRFT, one tree", "HRFT, five trees"
PUBLISHED_TECOA, TEXTS_ONCE = "TeCoA, published loop", "TeCoA, published loop, texts encoded once"
PUBLISHED_FARE = "FARE, published loop"
RATIOS = ((PUBLISHED_TECOA, TECOA), (TEXTS_ONCE, TECOA), (PUBLISHED_FARE, FARE), (ONE, TECOA), (FIVE, TECOA))
EVALUATED_EVERY, EVALUATION_GRADIENTS = 10, 51
"""The FARE authors' loop makes 50 steps of APGD (51 gradients) on as many validation images every ten steps."""


def write_page(content: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace the tables of step.md."""
    put(PAGE, tables(content), MARK)


def tables(content: Mapping[str, Mapping[str, Any]]) -> str:
    return "\n".join(_section(name, found) for name, found in content.items())


def seconds(found: Mapping[str, Any], name: str) -> list[float]:
    return found["rows"][name]["seconds"]


def ratios(found: Mapping[str, Any], one: str, other: str) -> list[float]:
    """Seconds of `one` over those of `other`, round by round; a row that was left out of rounds has its own rounds."""
    above, below = seconds(found, one), seconds(found, other)
    every = -(-len(below) // len(above))
    return [a / b for a, b in zip(above, below[::every], strict=True)]


def speed(found: Mapping[str, Any], name: str) -> float:
    """Floating-point operations a second, in the median round."""
    return found["rows"][name]["operations"] / median(seconds(found, name))


def _section(title: str, found: Mapping[str, Any]) -> str:
    setting, peak = found["setting"], median(found["matmul_peak"])
    batch, steps = int(setting["batch_size"]), int(setting["attack_steps"])
    lines = [
        f"## {title}, {steps} attack steps",
        "",
        f"{found['machine']}; torch {found['torch']}, threads: {found['threads']}, {setting['clock']} seconds. "
        f"Matrix products reach {peak / 1e9:,.0f} GFLOP/s (median of {len(found['matmul_peak'])} rounds, range "
        f"{_range([value / 1e9 for value in found['matmul_peak']], '.0f')}).",
        "",
        "| | seconds a step: median (range) | rounds | images/s | TFLOP a step | of the matmul peak "
        "| of the bare encoder's speed | memory, GB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in found["rows"].items():
        taken = seconds(found, name)
        lines.append(
            f"| {name} | {median(taken):.2f} ({_range(taken, '.2f')}) | {len(taken)} | {batch / median(taken):.1f} | "
            f"{row['operations'] / 1e12:.2f} | {speed(found, name) / peak:.0%} | "
            f"{speed(found, name) / speed(found, BARE):.0%} | {row['bytes'] / 1e9:.2f} |"
        )
    lines += ["", "| ratio of times within a round | median | range |", "|---|---:|---:|"]
    for one, other in RATIOS:
        values = ratios(found, one, other)
        lines.append(f"| {one} / {other} here | {median(values):.3f} | {_range(values, '.3f')} |")
    return "\n".join([*lines, "", *_arithmetic(found, batch, steps), ""])


def _arithmetic(found: Mapping[str, Any], batch: int, steps: int) -> list[str]:
    """What follows from the measured rows by multiplying and adding."""
    gradient = median(seconds(found, PIXELS))
    here, published = median(seconds(found, FARE)), median(seconds(found, PUBLISHED_FARE))
    evaluation = gradient * EVALUATION_GRADIENTS / EVALUATED_EVERY
    ten = (10 - steps) * gradient
    part = found["hierarchical_part"]
    share = median(part["seconds"]) / (median(seconds(found, FIVE)) * part["batch_size"] / batch)
    return [
        "By arithmetic from these rows:",
        "",
        f"- FARE, published loop with its evaluation ({EVALUATION_GRADIENTS} gradients every {EVALUATED_EVERY} steps) "
        f"/ FARE here: {(published + evaluation) / here:.2f}; with 10 attack steps, as published, "
        f"{(published + ten + evaluation) / (here + ten):.2f}, and {(published + ten) / (here + ten):.2f} without the "
        "evaluation.",
        f"- All that HRFT adds to the encoder, at batch {part['batch_size']} and {part['nodes']} nodes (measured "
        f"alone: {median(part['seconds']):.2f} s, {_range(part['seconds'], '.2f')}): {share:.1%} of a step whose time "
        "grows with the batch from the row of five trees.",
    ]


def _range(values: list[float], form: str) -> str:
    return f"{min(values):{form}} to {max(values):{form}}"
