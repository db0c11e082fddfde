"""What a run of another size would take, by arithmetic from a step that was measured (docs/scale.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass

BYTES_OF_STATE = 12
"""An fp32 weight and AdamW's two fp32 moments."""
BYTES_OF_CHECKPOINT = 4


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """The measured step, and what is assumed about the run; times in seconds."""

    step_seconds: float
    batch_size: int
    gpus: int
    parameters: float
    images: float
    epochs: float
    image_bytes: float
    efficiency: float
    gpu_failure_hours: float
    write_bytes: float
    restart_seconds: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One row of the table."""

    gpus: int
    gpu_hours: float
    days: float
    data_bytes: float
    failure_hours: float
    interval: float
    lost: float


def best_interval(save: float, failure: float) -> float:
    """The seconds of work between two saves that lose least (Daly 2006, equation 37), with `save` seconds a save and
    `failure` seconds between failures: sqrt(2 save failure), Young's, to first order."""
    if save >= 2 * failure:
        return failure
    ratio = save / (2 * failure)
    return math.sqrt(2 * save * failure) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - save


def overhead(interval: float, save: float, failure: float, restart: float) -> float:
    """Expected wall time over useful time, saves, restarts and work done twice included (Daly 2006, equation 20)."""
    return failure / interval * math.exp(restart / failure) * math.expm1((interval + save) / failure)


def estimate(given: Assumptions, gpus: int) -> Estimate:
    """The run on a number of GPUs."""
    image_seconds = given.step_seconds * given.gpus / given.batch_size / given.efficiency  # of one GPU
    save = given.parameters * BYTES_OF_STATE / given.write_bytes
    failure = given.gpu_failure_hours * 3600 / gpus
    interval = best_interval(save, failure)
    factor = overhead(interval, save, failure, given.restart_seconds)
    gpu_hours = given.epochs * given.images * image_seconds / 3600 * factor
    return Estimate(
        gpus=gpus,
        gpu_hours=gpu_hours,
        days=gpu_hours / gpus / 24,
        data_bytes=gpus / image_seconds * given.image_bytes,
        failure_hours=failure / 3600,
        interval=interval,
        lost=1 - 1 / factor,
    )
