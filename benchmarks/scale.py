"""What a run of another size would take, by arithmetic from a step that was measured: a plan, not a measurement.

    python benchmarks/scale.py --step-seconds 0.5 --batch-size 64 --gpus 1 --parameters 86e6

`--step-seconds` is the time of one step of `robustree harden` with `--batch-size` images on `--gpus` GPUs (the bar
shows images a second); everything else is an assumption whose default the help shows. Formulas: docs/scale.md.
"""

from __future__ import annotations

import argparse

from robustree.reproducing.long_runs import BYTES_OF_CHECKPOINT, BYTES_OF_STATE, Assumptions, estimate


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
