"""What reading the next batch ahead saves: the built-in model on a folder of JPEGs, TeCoA, batches of 64.

    OMP_NUM_THREADS=1 python benchmarks/reading.py        # writes reading.json, about a minute on 2 cores

The same run is made with images read when they are needed and read ahead, one after the other, several times; one
thread computes, so that the other core is free to decode. Weights are compared bit by bit."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from provenance import machine

from robustree.attacks import PGD
from robustree.data import DataSet, data_over
from robustree.methods import TeCoA
from robustree.models import load
from robustree.taxonomy import Forest, TreeSource, build_forest
from robustree.training import Recipe, Runtime, harden, loop
from robustree.training.prefetch import Key, Made, Prefetch
from robustree.writing import write_whole

CLASSES, EACH, SIDE, REPEATS = ("fox", "cat", "owl", "pear"), 64, 512, 3
RECIPE = Recipe(method=TeCoA(), attack=PGD(steps=3, step_size=0.5, best=False), steps=4, batch_size=64)


class WhenNeeded(Prefetch[Key, Made]):
    """Nothing is begun before it is asked for."""

    def get(self, key: Key, *, then: Key | None) -> Made:
        return super().get(key, then=None)


def draw(folder: Path) -> None:
    """Smooth noise as JPEGs, one sub-folder a class."""
    dice = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir()
        for number in range(EACH):
            coarse = Image.fromarray(dice.integers(0, 255, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8))
            coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / name / f"{number}.jpg", quality=90)


def seconds_a_step(data: DataSet, forest: Forest, reader: Callable[..., Any]) -> tuple[float, list[torch.Tensor]]:
    """The mean of all steps but the first, and the weights at the end."""
    loop.Prefetch = reader  # type: ignore[misc]
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        report = lambda progress: ends.append(time.perf_counter())  # noqa: E731
        model = harden(load("nano"), data, forest, RECIPE, Path(directory), runtime=Runtime(cpu=True), report=report)
    return (ends[-1] - ends[0]) / (len(ends) - 1), list(model.parameters())


def main() -> None:
    forest = build_forest(CLASSES, [TreeSource("kind", {"animal": ["fox", "cat", "owl"], "plant": ["pear"]})])
    seconds: dict[str, list[float]] = {"when needed": [], "ahead": []}
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder))
        data = data_over(folder, forest)
        images = data.training(load("nano").image_encoder.preprocessing.resolution)
        started = time.perf_counter()
        images.images(torch.arange(64), torch.Generator().manual_seed(0))
        decoding = time.perf_counter() - started
        for _ in range(REPEATS):
            weights = []
            for name, reader in (("when needed", WhenNeeded), ("ahead", Prefetch)):
                taken, after = seconds_a_step(data, forest, reader)
                seconds[name].append(taken)
                weights.append(after)
            if not all(torch.equal(one, other) for one, other in zip(*weights, strict=True)):
                raise SystemExit("reading ahead changed the weights.")
    ratios = [late / ahead for late, ahead in zip(seconds["when needed"], seconds["ahead"], strict=True)]
    content = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/reading.py",
        "machine": machine(torch.device("cpu")),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "images": f"{len(CLASSES) * EACH} JPEGs of {SIDE} x {SIDE} pixels, batches of {RECIPE.batch_size}",
        "seconds to read a batch": decoding,
        "seconds a step": seconds,
        "median ratio": statistics.median(ratios),
        "ratios": ratios,
    }
    write_whole(Path(__file__).with_name("reading.json"), json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
