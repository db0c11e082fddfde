"""curves.json: at which eps and after how many steps each image fell, and the curves of robust accuracy over both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustree.auditing.outcomes import rate
from robustree.auditing.statistics import percentile_interval, resampled_means

FILE, FORMAT = "curves.json", "robustree-curves/1"
AXES = ("eps", "steps")
RESAMPLES = 2000
Fell = Sequence[float | None]
"""Where each image fell: 0 wrong without an attack, else the smallest eps or number of steps; None if it stands."""


def level_curves(fell: Mapping[str, Mapping[str, Fell]], grids: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The curves of one subject: {"levels": {level: curve}, "means": {"levels": curve, "superclasses": curve or None}}.

    `fell[level][axis]` has one entry an image, in one order. A curve holds for each axis its points {eps or steps,
    value, low, high}: the share of images that fell at no x' <= x, so no curve rises. A level's points are rates with
    Wilson intervals (and count, n); the means over levels have bootstrap intervals over images.
    """
    labels = list(fell)
    groups = {"levels": labels, "superclasses": labels[1:]}  # the leaf comes first
    return {
        "levels": {label: {axis: _rates(fell[label][axis], grids[axis], axis) for axis in AXES} for label in labels},
        "means": {
            name: {axis: _means([fell[label][axis] for label in group], grids[axis], axis) for axis in AXES}
            if group
            else None
            for name, group in groups.items()
        },
    }


def _rates(fell: Fell, grid: Sequence[float], axis: str) -> list[dict[str, Any]]:
    counts = [sum(_stands(at, x) for at in fell) for x in grid]
    return [{axis: x, **(rate(count, len(fell)) or {})} for x, count in zip(grid, counts, strict=True)]


def _means(levels: Sequence[Fell], grid: Sequence[float], axis: str) -> list[dict[str, Any]]:
    standing = np.array([[[_stands(at, x) for x in grid] for at in fell] for fell in levels], dtype=np.float64)
    per_image = standing.mean(axis=0)  # (images, points)
    samples = resampled_means(per_image, resamples=RESAMPLES, seed=0)
    points = []
    for number, x in enumerate(grid):
        low, high = percentile_interval(samples[:, number])
        points.append({axis: x, "value": float(per_image[:, number].mean()), "low": low, "high": high})
    return points


def _stands(fell: float | None, x: float) -> bool:
    return fell is None or fell > x


def read_curves(directory: str | Path) -> dict[str, Any]:
    """The content of curves.json: {"format", "protocol", "images", "subjects"}.

    A subject has model, head, weights, `fell` (level -> axis -> `Fell`) and what `level_curves` makes of it.

    Raises:
        ValueError: the directory holds no curves, they are damaged, or another version wrote them.
    """
    path = Path(directory) / FILE
    if not path.is_file():
        raise ValueError(f"{str(directory)!r} holds no {FILE}: run the audit with --curves.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"the format is {content['format']!r}, and this version reads {FORMAT!r}")
        n = len(content["images"])
        for subject in content["subjects"]:
            for label in subject["fell"]:
                for axis in AXES:
                    grid = content["protocol"][axis]
                    if len(subject["fell"][label][axis]) != n or len(subject["levels"][label][axis]) != len(grid):
                        raise ValueError(f"{subject['model']} at {label} has another number of images or points")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}): delete it, and --curves measures it again.") from error
    return content
