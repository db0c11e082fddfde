"""The training loop: data order, learning rate, logging, checkpoints and resume; the same for every method."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from robustree.checkpoint import weights_digest, write_whole
from robustree.training.recipe import Recipe
from robustree.training.runtime import Runtime
from robustree.training.state import load_state, save_state
from robustree.training.step import training_step
from robustree.tree_model import Scores, TreeModel


class TrainingData(Protocol):
    """What the loop needs of a data set. `leaves` (N,) classes; `images(index, generator)` augmented images (B, 3, H,
    W)."""

    @property
    def leaves(self) -> Tensor: ...

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor: ...


class NonFiniteError(RuntimeError):
    """The loss or a gradient was not finite; the weights are those of the step before."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What happened in one optimiser step: `step` counts from 1; `logs` holds the loss terms, the learning rate, the
    gradient norm."""

    step: int
    steps: int
    images: int
    logs: Mapping[str, float]


def train(
    raw: TreeModel,
    recipe: Recipe,
    data: TrainingData,
    *,
    directory: Path,
    runtime: Runtime | None = None,
    save_every: int = 50,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> TreeModel:
    """Train `raw` in place by a recipe and return it.

    `directory` gets `log.csv` and, every `save_every` steps and at a `stop`, the state that the same call resumes
    from exactly.

    Raises:
        NonFiniteError: before the optimiser step that a non-finite loss or gradient would have spoilt.
        ValueError: the directory holds another run, or the data is smaller than one batch.
    """
    runtime = runtime or Runtime()
    if len(data.leaves) < recipe.batch_size:
        raise ValueError(f"the data has {len(data.leaves)} images; a batch has {recipe.batch_size}: lower batch_size.")
    raw.to(runtime.device)
    select_trained(raw, text=recipe.method.trains_text)
    frozen = frozen_copy(raw)
    trained = [p for p in raw.parameters() if p.requires_grad]
    optimiser = _optimiser(raw, recipe)
    identity = _identity(raw, recipe, data)
    start = load_state(directory, raw, optimiser, identity)
    model = runtime.wrap(raw)
    log = _Log(directory / "log.csv", start, runtime.is_main)
    for step in range(start, recipe.steps):
        for group in optimiser.param_groups:
            group["lr"] = group["factor"] * recipe.learning_rate(step)
        optimiser.zero_grad()
        logs: dict[str, float] = {}
        for micro in range(recipe.micro_batches):
            # Chunks count over all processes: 1 process with 2 micro-batches computes what 2 processes with 1 do.
            chunk = runtime.rank * recipe.micro_batches + micro
            images, leaves, generator = _chunk(recipe, data, step, chunk, runtime)
            with runtime.accumulate(model, last=micro == recipe.micro_batches - 1):
                loss, terms = training_step(
                    model, raw, frozen, recipe.method, recipe.attack, recipe.threat, images, leaves, generator
                )
                runtime.backward(loss / recipe.micro_batches)
            for name, value in ({"loss": loss.detach()} | terms).items():
                logs[name] = logs.get(name, 0.0) + float(value) / recipe.micro_batches
        logs["gradient_norm"] = float(torch.nn.utils.clip_grad_norm_(trained, 1.0))
        means = runtime.mean(torch.tensor(list(logs.values()), device=runtime.device))
        logs = dict(zip(logs, means.tolist(), strict=True))
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs["gradient_norm"]):
            raise NonFiniteError(
                f"the loss ({logs['loss']}) or the gradient norm ({logs['gradient_norm']}) was not finite "
                f"at step {step + 1}; the weights are those of the step before: lower lr or the weights of the loss."
            )
        optimiser.step()
        logs["lr"] = recipe.learning_rate(step)
        log.add(step + 1, logs)
        report(Progress(step=step + 1, steps=recipe.steps, images=recipe.batch_size, logs=logs))
        halt = runtime.any(stop())
        if runtime.is_main and ((step + 1) % save_every == 0 or step + 1 == recipe.steps or halt):
            log.write()
            save_state(directory, raw, optimiser, step + 1, identity)
        if halt:
            break
    runtime.wait()
    return raw


def select_trained(raw: TreeModel, *, text: bool) -> None:
    """Let gradients reach the image encoder and, if `text`, the text projection; nothing else."""
    raw.requires_grad_(False)
    raw.image_encoder.requires_grad_(True)
    raw.text_projection.requires_grad_(text)


def _optimiser(raw: TreeModel, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with one group of images and one of texts; "factor" is a group's fraction of the learning rate."""
    parts = ((raw.image_encoder, 1.0), (raw.text_projection, recipe.text_lr))
    groups = [{"params": [p for p in part.parameters() if p.requires_grad], "factor": factor} for part, factor in parts]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=recipe.lr, weight_decay=recipe.weight_decay
    )


def frozen_copy(raw: TreeModel) -> Callable[[Tensor], Scores]:
    """The model as it is now, without gradient: what FARE, PMG-AFT and AGFT compare with."""
    still = copy.deepcopy(raw).requires_grad_(False).eval()
    return torch.no_grad()(still)


def _chunk(
    recipe: Recipe, data: TrainingData, step: int, chunk: int, runtime: Runtime
) -> tuple[Tensor, Tensor, torch.Generator]:
    """Images, classes and the noise source of one chunk of one step: a function of (seed, step, chunk) only."""
    chunks = recipe.micro_batches * runtime.world
    if recipe.batch_size % chunks:
        raise ValueError(
            f"batch_size {recipe.batch_size} is not a multiple of {chunks} (micro_batches x processes): "
            "choose a multiple."
        )
    size = recipe.batch_size // chunks
    per_epoch = len(data.leaves) // recipe.batch_size
    epoch, within = divmod(step, per_epoch)
    order = torch.randperm(len(data.leaves), generator=torch.Generator().manual_seed(_seed(recipe.seed, epoch, -1)))
    first = within * recipe.batch_size + chunk * size
    index = order[first : first + size]
    generator = torch.Generator().manual_seed(_seed(recipe.seed, step, chunk))
    return data.images(index, generator).to(runtime.device), data.leaves[index].to(runtime.device), generator


def _seed(seed: int, step: int, chunk: int) -> int:
    """One 63-bit number for (seed, step, chunk), by mixing, so that neighbouring runs share no stream."""
    mixed = (seed * 0x9E3779B97F4A7C15 + (step + 1) * 0xBF58476D1CE4E5B9 + (chunk + 2) * 0x94D049BB133111EB) % 2**64
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    return (mixed ^ (mixed >> 27)) >> 1


def _identity(raw: TreeModel, recipe: Recipe, data: TrainingData) -> str:
    """What a state file belongs to, as JSON: the recipe by field, the forest and the data."""
    content = {field.name: repr(getattr(recipe, field.name)) for field in fields(recipe)} | {
        "forest": raw.forest.fingerprint,
        "images": len(data.leaves),
        "head": repr(raw.head),
        "pretrained weights": weights_digest(raw),
    }
    return json.dumps(content, sort_keys=True)


class _Log:
    """`log.csv`: one row a step; rows after the resumed step are dropped, so that a log shows every step once."""

    def __init__(self, path: Path, start: int, active: bool):
        self._path, self._active = path, active
        self._rows: list[dict[str, float]] = []
        if active and start and path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
            rows = [row | {"step": int(row["step"])} for row in rows]
            self._rows = [row for row in rows if row["step"] <= start]

    def add(self, step: int, logs: Mapping[str, float]) -> None:
        self._rows.append({"step": step, **logs})

    def write(self) -> None:
        if self._active and self._rows:
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=list(self._rows[-1]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)
            write_whole(self._path, text.getvalue())
