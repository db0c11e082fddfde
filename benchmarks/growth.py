"""How the time and the memory of one training step grow, one quantity at a time, on a CPU.

    python benchmarks/growth.py         # growth.json and the curves and tables of docs/growth.md

The hierarchical method on the geometry of the built-in model with random weights (4 layers of width 192, patches of 12
pixels) and random texts; synthetic trees in which ten children have one parent. Every point is a process of its own,
so its memory is its own: the peak above what the process had before the step."""

from __future__ import annotations

import json
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import put
from provenance import machine
from torch import Tensor, nn

from robustree.attacks import PGD, Threat
from robustree.geometry import Poincare
from robustree.methods import Hierarchical
from robustree.taxonomy import Forest, TreeSource, build_forest
from robustree.training import training_step
from robustree.training.loop import Frozen, select_trained
from robustree.tree_model import Head, TreeModel
from robustree.writing import write_whole

HERE = Path(__file__).parent
PAGE, CURVES = HERE.parent / "docs" / "growth.md", HERE.parent / "docs" / "pictures" / "growth.svg"
REPEATS, WIDTH, TEXT, CHILDREN = 3, 192, 128, 10


@dataclass(frozen=True)
class Setting:
    """One training step."""

    batch: int = 16
    nodes: int = 1000
    trees: int = 1
    steps: int = 3
    side: int = 48

    @cached_property
    def patches(self) -> int:
        return (self.side // 12) ** 2


AXES: dict[str, tuple[int, ...]] = {
    "batch": (4, 8, 16, 32, 64),
    "nodes": (10, 100, 1000, 5000, 20000),
    "trees": (1, 2, 5, 10),
    "steps": (1, 2, 4, 8),
    "side": (24, 48, 96, 144),
}
NAMES = {
    "batch": "images a batch",
    "nodes": "nodes of one tree",
    "trees": "trees over the same leaves",
    "steps": "steps of the attack",
    "side": "side of the image, pixels",
}


class Tower(nn.Module):
    """Images in [0, 1] to embeddings."""

    def __init__(self, side: int):
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        super().__init__()
        shape = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 4, "num_attention_heads": 3}
        config = CLIPVisionConfig(**shape, image_size=side, patch_size=12, projection_dim=TEXT)
        self.tower = CLIPVisionModelWithProjection(config).eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.tower((images - 0.5) / 0.5).image_embeds


def forest_of(nodes: int, trees: int) -> Forest:
    """Trees of about `nodes` nodes each over the same leaves, in another order for each tree."""
    leaves = [f"leaf {number}" for number in range(round(nodes * (1 - 1 / CHILDREN)))]
    sources = []
    for tree in range(trees):
        order = list(leaves)
        random.Random(tree).shuffle(order)
        level: list[Any] = order
        depth, children = 0, min(CHILDREN, len(order) // 2)
        while len(level) > children:
            groups = [level[start : start + children] for start in range(0, len(level), children)]
            depth += 1
            level = [
                (f"tree {tree} level {depth} node {number}", group if depth == 1 else dict(group))
                for number, group in enumerate(groups)
            ]
        sources.append(TreeSource(f"tree{tree}", dict(level)))
    return build_forest(leaves, sources)


def measure(setting: Setting) -> dict[str, float]:
    """CPU seconds (the median of the steps after the first) and MiB of one step."""
    torch.manual_seed(0)
    forest = forest_of(setting.nodes, setting.trees)
    head = Head(space=Poincare(), scale=5.0)
    features = torch.randn(len(forest.names), TEXT)
    raw = TreeModel(Tower(setting.side), nn.Linear(TEXT, TEXT, bias=False), features, forest, head, image_norm=1.0)
    select_trained(raw, text=True)
    frozen, method = Frozen(raw), Hierarchical()
    optimiser = torch.optim.AdamW([p for p in raw.parameters() if p.requires_grad], lr=1e-5)
    images = torch.rand(setting.batch, 3, setting.side, setting.side)
    leaves = torch.arange(setting.batch) % forest.leaf_count
    attack, threat = PGD(steps=setting.steps, step_size=0.5, best=False), Threat(eps=4 / 255)
    before, seconds = rss(), []
    for _ in range(REPEATS + 1):
        started = time.process_time()
        optimiser.zero_grad()
        generator = torch.Generator().manual_seed(0)
        loss, _ = training_step(raw, raw, frozen, method, attack, threat, images, leaves, generator)
        loss.backward()
        optimiser.step()
        seconds.append(time.process_time() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": statistics.median(seconds[1:]), "mib": peak - before, "all_nodes": len(forest.names)}


def rss() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def apart(setting: Setting) -> dict[str, float]:
    """`measure` in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(writer, "w") as out:
            out.write(json.dumps(measure(setting)))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as found:
        text = found.read()
    if os.waitpid(child, 0)[1] or not text:
        raise RuntimeError(f"{setting} could not be measured.")
    return json.loads(text)


def law(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """y = intercept + slope x by least squares of the relative errors, with the largest of these; and the exponent of y
    between the two largest x."""
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    design = np.stack([1 / b, a / b], axis=1)
    (intercept, slope), *_ = np.linalg.lstsq(design, np.ones_like(b), rcond=None)
    exponent = np.log(b[-1] / b[-2]) / np.log(a[-1] / a[-2])
    worst = np.abs((intercept + slope * a) / b - 1).max()
    return {"intercept": intercept, "slope": slope, "worst": float(worst), "exponent": float(exponent)}


def abscissa(axis: str, row: dict[str, Any]) -> float:
    """What the law is linear in: for the side, the number of patches."""
    return Setting(**row["setting"]).patches if axis == "side" else row["setting"][axis]


def laws(rows: Sequence[dict[str, Any]], axis: str) -> dict[str, dict[str, float]]:
    own = [row for row in rows if row["axis"] == axis]
    return {kind: law([abscissa(axis, row) for row in own], [row[kind] for row in own]) for kind in ("seconds", "mib")}


def draw(rows: Sequence[dict[str, Any]]) -> None:
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "robustree"
    figure, panels = pyplot.subplots(2, len(AXES), figsize=(13, 5.2), layout="constrained")
    for column, axis in enumerate(AXES):
        own = [row for row in rows if row["axis"] == axis]
        places = [row["setting"][axis] for row in own]
        for line, (kind, unit, factor) in enumerate(
            (("seconds", "ms a step", 1000), ("mib", "MiB above the start", 1))
        ):
            panel, fit = panels[line][column], laws(rows, axis)[kind]
            fine = np.geomspace(places[0], places[-1], 60)
            base = (fine / 12) ** 2 if axis == "side" else fine
            panel.plot(fine, factor * (fit["intercept"] + fit["slope"] * base), color="#9aa5b1", linewidth=1.5)
            panel.plot(places, [factor * row[kind] for row in own], "o", color="#1f4e79", markersize=5)
            panel.set_xscale("log")
            panel.set_ylim(bottom=0, top=1.1 * factor * max(row[kind] for row in own))
            panel.set_xticks(
                places, [f"{place}" if place < 1000 else f"{place // 1000}k" for place in places], minor=False
            )
            panel.set_xticks([], minor=True)
            panel.tick_params(labelsize=8)
            panel.spines[["top", "right"]].set_visible(False)
            if column == 0:
                panel.set_ylabel(unit)
            if line == 1:
                panel.set_xlabel(NAMES[axis], fontsize=9)
    figure.savefig(CURVES, metadata={"Date": None})


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| | time of a step, ms | error | exponent | memory, MiB | error | exponent |",
        "|---|---|---:|---:|---|---:|---:|",
    ]
    for axis in AXES:
        fits, unit = (
            laws(rows, axis),
            "patch" if axis == "side" else {"nodes": "node", "batch": "image"}.get(axis, axis[:-1]),
        )
        cells = []
        for kind, factor in (("seconds", 1000), ("mib", 1)):
            fit = fits[kind]
            cells += [
                f"{factor * fit['intercept']:.3g} + {factor * fit['slope']:.3g} per {unit}",
                f"{100 * fit['worst']:.0f} %",
                f"{fit['exponent']:.2f}",
            ]
        lines.append(f"| {NAMES[axis]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure the axes named on the command line (all, if none is), keeping the others' points."""
    torch.set_num_threads(1)
    import transformers  # noqa: F401  (before the processes are forked)

    file, wanted, base = HERE / "growth.json", sys.argv[1:] or list(AXES), Setting()
    kept = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    rows = [row for row in kept if row["axis"] not in wanted]
    for axis in wanted:
        for value in AXES[axis]:
            setting = replace(base, **{axis: value})
            rows.append({"axis": axis, "setting": asdict(setting)} | apart(setting))
            print(axis, value, {k: round(v, 3) for k, v in rows[-1].items() if isinstance(v, float)}, flush=True)
    complete = {row["axis"] for row in rows} == set(AXES)
    content = {
        "command": "python benchmarks/growth.py",
        "machine": f"{machine(torch.device('cpu'))}, one thread",
        "protocol": f"CPU seconds, median of {REPEATS} steps after one; peak resident memory above that at the start",
        "seed": 0,
        "torch": torch.__version__,
        "base": asdict(base),
        "laws": {axis: laws(rows, axis) for axis in AXES} if complete else {},
        "rows": rows,
    }
    write_whole(file, json.dumps(content, indent=1) + "\n")
    if complete:
        publish(rows)


def publish(rows: Sequence[dict[str, Any]]) -> None:
    """Draw the curves, and put the table into the page."""
    draw(rows)
    put(PAGE, table(rows), "<!-- table -->\n")
    print(table(rows))


if __name__ == "__main__":
    main()
