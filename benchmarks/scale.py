"""What a run of another size would take, by arithmetic from a step that was measured: a plan, not a measurement.

    python benchmarks/scale.py --step-seconds 0.5 --batch-size 64 --gpus 1 --parameters 86e6

`--step-seconds` is the time of one step of `robustree harden` with `--batch-size` images on `--gpus` GPUs (the bar
shows images a second); everything else is an assumption whose default the help shows. Formulas: docs/scale.md.
"""

from __future__ import annotations

import argparse
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


def table(given: Assumptions, sizes: list[int]) -> str:
    """Rows for several numbers of GPUs, as Markdown."""
    lines = [
        "| GPUs | GPU hours | days | data, MB/s | hours between failures | save every | time lost |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in (estimate(given, size) for size in sizes):
        lines.append(
            f"| {row.gpus:,} | {row.gpu_hours:,.0f} | {row.days:,.1f} | {row.data_bytes / 1e6:,.0f} | "
            f"{row.failure_hours:,.0f} | {row.interval / 60:,.0f} min | {row.lost:.2%} |"
        )
    state, checkpoint = (given.parameters * size / 1e9 for size in (BYTES_OF_STATE, BYTES_OF_CHECKPOINT))
    return "\n".join([*lines, "", f"State {state:.1f} GB (two are kept), checkpoint {checkpoint:.1f} GB."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    number = {"type": float}
    parser.add_argument("--step-seconds", **number, required=True, help="measured: seconds a step")
    parser.add_argument("--batch-size", type=int, required=True, help="measured: images a step")
    parser.add_argument("--gpus", type=int, required=True, help="measured: GPUs of that step")
    parser.add_argument("--parameters", **number, required=True, help="parameters that are trained")
    parser.add_argument("--images", **number, default=1e9, help="images of the data set")
    parser.add_argument("--epochs", **number, default=1.0)
    parser.add_argument("--image-bytes", **number, default=1e5, help="bytes of an image on disk")
    parser.add_argument("--efficiency", **number, default=0.9, help="speed of a GPU among many, over that measured")
    parser.add_argument("--gpu-failure-hours", **number, default=5e4, help="hours between failures of one GPU")
    parser.add_argument("--write-bytes", **number, default=2e9, help="bytes a second at which a state is written")
    parser.add_argument("--restart-seconds", **number, default=300.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 64, 256, 1024], help="numbers of GPUs in the table")
    options = vars(parser.parse_args())
    sizes = options.pop("sizes")
    print(table(Assumptions(**options), sizes))


if __name__ == "__main__":
    main()
