"""How the time and the memory of an audit grow with its images: the command itself, a process for every number.

    python benchmarks/audit_growth.py --data tiny_imagenet=PATH     # audit_growth.json and its table of docs/growth.md

`autoattack`: AutoAttack `fast` at the leaf of the emoji's held-out drawings, on the built-in model. `pgd`: one step of
PGD at the leaf and three levels of one tree, on photographs that the same model was not made for: many images, cheaply.
`figures`: all figures of an audit like `pgd`, from rows with random decisions that are made one at a time.
Seconds are CPU seconds of the process and memory is its peak, both with its start."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from growth import PAGE, law
from pages import put
from provenance import provenance

from robustree.writing import write_whole

SERIES: dict[str, tuple[int, ...]] = {
    "autoattack": (16, 32, 64, 128),
    "pgd": (250, 500, 1000, 2500, 5000),
    "figures": (10_000, 20_000, 40_000, 80_000),
}


def figures(images: int) -> None:
    """What `robustree report` makes of the rows of this many images."""
    import numpy as np

    from robustree.auditing.metrics import table_figures
    from robustree.auditing.table import read_table
    from robustree.data.catalog import CATALOG

    forest, draw = CATALOG["tiny_imagenet"].forest(("kind",)), np.random.default_rng(0)
    cuts = forest.cuts()

    def rows() -> Iterator[dict[str, Any]]:
        for attacked in ("", *(cut.label for cut in cuts)):
            attack = "pgd-1" if attacked else "clean"
            for image in range(images):
                decided = {cut.label: int(draw.integers(len(cut.nodes))) for cut in cuts}
                yield {
                    "image": f"{image:07d}",
                    "leaf": image % forest.leaf_count,
                    "model": "nano",
                    "head": "cosine",
                    "attack": attack,
                    "attacked": attacked,
                    "direct": decided,
                    "summed": decided,
                    "distance": 0.0,
                    "valid": True,
                }

    table_figures(read_table(rows(), forest))


def command(series: str, images: int, data: str, output: str) -> list[str]:
    if series == "figures":
        return [sys.executable, __file__, "--figures", str(images)]
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
        "| | images | CPU seconds | error of the line | peak memory, MiB |",
        "|---|---|---|---:|---|",
    ]
    for series, numbers in SERIES.items():
        own = [row for row in rows if row["series"] == series]
        fit = law(numbers, [row["seconds"] for row in own])
        memory = ", ".join(f"{row['mib']:.0f}" for row in own)
        seconds = f"{fit['intercept']:.3g} + {fit['slope']:.2g} an image | {100 * fit['worst']:.0f} %"
        lines.append(f"| {series} | {', '.join(f'{number:,}' for number in numbers)} | {seconds} | {memory} |")
    return "\n".join(lines) + "\n"


def measure_series(chosen: list[str], data: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    result = Path(__file__).with_suffix(".json")
    kept = json.loads(result.read_text(encoding="utf-8"))["rows"] if result.exists() else []
    rows = [row for row in kept if row["series"] not in chosen]
    for series in chosen:
        for images in SERIES[series]:
            rows.append(measure(series, images, data))
            print(rows[-1], flush=True)
    content = {"rows": rows, "seed": 0, **provenance("python benchmarks/audit_growth.py --data tiny_imagenet=PATH")}
    write_whole(result, json.dumps(content, indent=1) + "\n")
    put(PAGE, table(rows), "<!-- audits -->\n")
    print(table(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="tiny_imagenet=PATH")
    parser.add_argument("--series", nargs="+", choices=SERIES, default=list(SERIES), help="others keep their rows")
    parser.add_argument("--figures", type=int, metavar="IMAGES", help="what a process of that series does")
    options = parser.parse_args()
    if options.figures:
        figures(options.figures)
    else:
        measure_series(options.series, options.data)


if __name__ == "__main__":
    main()
