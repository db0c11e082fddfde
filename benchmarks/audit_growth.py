"""How the time and the memory of an audit grow with its images: the command itself, a process for every number.

    python benchmarks/audit_growth.py --data tiny_imagenet=PATH     # audit_growth.json and its table of docs/growth.md

`autoattack`: AutoAttack `fast` at the leaf of the emoji's held-out drawings, on the built-in model. `pgd`: one step of
PGD at the leaf and three levels of one tree, on photographs that the same model was not made for: many images, cheaply.
Seconds are CPU seconds of the process and memory is its peak, both with its start."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from growth import PAGE, law
from pages import put
from provenance import provenance

from robustree.writing import write_whole

SERIES: dict[str, tuple[int, ...]] = {"autoattack": (16, 32, 64, 128), "pgd": (250, 500, 1000, 2500, 5000)}


def command(series: str, images: int, data: str, output: str) -> list[str]:
    shared = ["nano", "--images", str(images), "--no-checks", "--gallery", "0", "--output", output]
    own = {
        "autoattack": ["--attacks", "autoattack-fast", "--stop", "--data", "emoji", "--trees"],
        "pgd": ["--attacks", "pgd", "--pgd.steps", "1", "--data", data, "--trees", "kind"],
    }
    return [sys.executable, "-m", "robustree", "audit", *shared, *own[series]]


def measure(series: str, images: int, data: str) -> dict[str, Any]:
    """CPU seconds and peak MiB of one audit.

    Raises:
        RuntimeError: it failed."""
    with tempfile.TemporaryDirectory() as output:
        process = subprocess.Popen(command(series, images, data, output), stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"the audit of {images} images ended with status {status}.")
    return {
        "series": series,
        "images": images,
        "seconds": used.ru_utime + used.ru_stime,
        "mib": used.ru_maxrss / 1024,
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| | images | CPU seconds | error of the line | peak memory, MiB | error of the line |",
        "|---|---|---|---:|---|---:|",
    ]
    for series, numbers in SERIES.items():
        own = [row for row in rows if row["series"] == series]
        cells = []
        for kind in ("seconds", "mib"):
            fit = law(numbers, [row[kind] for row in own])
            cells += [f"{fit['intercept']:.3g} + {fit['slope']:.2g} an image", f"{100 * fit['worst']:.0f} %"]
        lines.append(f"| {series} | {numbers[0]} to {numbers[-1]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="tiny_imagenet=PATH")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = []
    for series, numbers in SERIES.items():
        for images in numbers:
            rows.append(measure(series, images, options.data))
            print(rows[-1], flush=True)
    content = {"rows": rows, "seed": 0, **provenance("python benchmarks/audit_growth.py --data tiny_imagenet=PATH")}
    write_whole(Path(__file__).with_suffix(".json"), json.dumps(content, indent=1) + "\n")
    put(PAGE, table(rows), "<!-- audits -->\n")
    print(table(rows))


if __name__ == "__main__":
    main()
