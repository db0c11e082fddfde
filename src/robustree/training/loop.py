"""The training loop: learning rate, accumulation, logging, states and resume; the same for every method."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn

from robustree.checkpoint import UNFINISHED, weights_digest
from robustree.lock import sole_writer
from robustree.processes import noticing_lost_processes
from robustree.training.acceleration import accelerated
from robustree.training.errors import ChangedCourseWarning, NonFiniteError, NotEnoughMemoryError, out_of_memory
from robustree.training.log import LOG, Log
from robustree.training.order import Division, Part, ShardedData, TrainingData, first_division, part_of_batch
from robustree.training.prefetch import Prefetch
from robustree.training.recipe import Recipe
from robustree.training.runtime import Runtime
from robustree.training.sharding import gather_into, whole
from robustree.training.state import STATE, Reached, adopt_state, load_state, save_state, state_tensors
from robustree.training.step import training_step
from robustree.tree_model import Scores, TreeModel
from robustree.writing import remove_leftovers

_LOCK = ".lock"
_Place = tuple[int, Division, int]  # step, how its batch is divided, number of the part


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
    finish: Callable[[], None] = lambda: None,
) -> TreeModel:
    """Train `raw` in place by a recipe and return it.

    `directory` gets `log.csv` and, every `save_every` steps and at a `stop`, the state that the same call resumes
    from exactly, with any number of processes. It belongs to this call alone until `finish` has returned, which the
    first process calls after the last step.

    Warns (ChangedCourseWarning) where the run goes on from an older state, or in smaller parts of a batch because
    memory or the number of processes asks for it.

    Raises:
        NonFiniteError: before the optimiser step that a non-finite loss or gradient would have spoilt.
        NotEnoughMemoryError: half a micro-batch does not fit into memory either.
        LostProcessError: another process of the run ended.
        ValueError: the directory holds another run, is written by one, or its files are damaged; or the data is smaller
            than one batch.
    """
    runtime = runtime or Runtime()
    if len(data.leaves) < recipe.batch_size:
        raise ValueError(f"the data has {len(data.leaves)} images; a batch has {recipe.batch_size}: lower batch_size.")
    with _own_directory(directory, runtime), ExitStack() as during:
        raw.precision = recipe.precision
        try:
            _steps(raw, recipe, data, directory, runtime, save_every, report, stop, finish, during)
        finally:
            raw.precision = "fp32"
        runtime.wait()
    return raw


@contextmanager
def _own_directory(directory: Path, runtime: Runtime) -> Iterator[None]:
    """The directory for this run alone, without what killed runs left half-written."""
    refusal = None
    with ExitStack() as held:
        if runtime.is_main:
            try:
                held.enter_context(sole_writer(directory / _LOCK, doing="another run"))
                held.callback((directory / _LOCK).unlink)
                remove_leftovers(directory, (LOG, STATE, UNFINISHED))
            except ValueError as error:
                refusal = error
        if runtime.any(refusal is not None):
            raise refusal or ValueError(f"another run is writing into {str(directory)!r}.")
        yield


def _steps(
    raw: TreeModel,
    recipe: Recipe,
    data: TrainingData,
    directory: Path,
    runtime: Runtime,
    save_every: int,
    report: Callable[[Progress], None],
    stop: Callable[[], bool],
    finish: Callable[[], None],
    during: ExitStack,
) -> None:
    select_trained(raw, text=recipe.method.trains_text)
    identity = _identity(raw, recipe, data)
    frozen, given, raw = Frozen(raw, runtime.placed), raw, runtime.placed(raw)
    trained = [p for p in raw.parameters() if p.requires_grad]
    optimiser = adamw(raw, recipe)
    step, division = _resumed(directory, raw, recipe, optimiser, identity, runtime)
    model = runtime.wrap(raw)
    log = Log(directory, step) if runtime.is_main else None
    halved = False
    during.enter_context(
        accelerated(
            raw.image_encoder,
            frozen.model.image_encoder,
            compiled=runtime.compiled,
            activation_checkpointing=runtime.activation_checkpointing,
        )
    )
    parts = during.enter_context(
        Prefetch[_Place, Part](lambda place: part_of_batch(recipe, data, *place, runtime.device))
    )
    while step < recipe.steps:
        for group in optimiser.param_groups:
            group["lr"] = group["factor"] * recipe.learning_rate(step)
        optimiser.zero_grad()
        terms = _gradient(model, raw, frozen, recipe, parts, step, division, runtime)
        if terms is None:
            division = _halved(recipe, step, division, again=halved, announce=runtime.is_main)
            halved = True
            runtime.free_memory()
            continue
        terms["gradient_norm"] = whole(torch.nn.utils.clip_grad_norm_(trained, 1.0))
        # The one place of a step where the host waits for the device.
        means = runtime.mean(torch.stack([value.float() for value in terms.values()])).tolist()
        logs = dict(zip(terms, means, strict=True))
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs["gradient_norm"]):
            raise NonFiniteError(
                f"the loss ({logs['loss']}) or the gradient norm ({logs['gradient_norm']}) was not finite "
                f"at step {step + 1}; the weights are those of the step before: lower lr or the weights of the loss."
            )
        optimiser.step()
        logs["lr"] = recipe.learning_rate(step)
        step += 1
        report(Progress(step=step, steps=recipe.steps, images=recipe.batch_size, logs=logs))
        halt = runtime.any(stop())
        if log:
            log.add(step, logs)
        if step % save_every == 0 or step == recipe.steps or halt:
            tensors = state_tensors(raw, optimiser, keep=runtime.is_main)
            if log:
                log.write()
                save_state(directory, tensors, Reached(step=step, division=division), identity)
        if halt:
            break
    if given is not raw:
        gather_into(given, raw)
    if step == recipe.steps and runtime.is_main:
        finish()


def _gradient(
    model: nn.Module,
    raw: TreeModel,
    frozen: Callable[[Tensor], Scores],
    recipe: Recipe,
    parts: Prefetch[_Place, Part],
    step: int,
    division: Division,
    runtime: Runtime,
) -> dict[str, Tensor] | None:
    """Add the gradient of one batch to the parameters, and return the means of this process's terms; None, in every
    process, where one of them ran out of memory."""
    logs: dict[str, Tensor] = {}
    own = division.share(runtime.rank, runtime.world)
    full = False
    for number in own:
        last = number == own[-1]
        exchange = last and runtime.world > 1 and not runtime.shards
        following = (step, division, number + 1) if not last else (step + 1, division, own[0])
        part = parts.get((step, division, number), then=following if following[0] < recipe.steps else None)
        share = recipe.batch_size / (len(part.leaves) * runtime.world)
        with runtime.accumulate(model, last=last):
            loss = None
            try:
                if not full:
                    loss, terms = training_step(model, raw, frozen, recipe.method, recipe.attack, recipe.threat, *part)
                    for name, value in ({"loss": loss.detach()} | terms).items():
                        logs[name] = logs.get(name, 0.0) + value.double() / share
                    if not exchange:
                        runtime.backward(loss / share)
            except RuntimeError as error:
                if runtime.shards:
                    _give_up(error, step)
                if not out_of_memory(error):
                    raise
                full, loss = True, None
            if exchange:
                # The others wait for this process in the last backward pass, whether its own loss fitted or not.
                try:
                    with noticing_lost_processes():
                        runtime.backward(0 * model(part.images[:1]).nodes.sum() if loss is None else loss / share)
                except torch.OutOfMemoryError as error:
                    raise NotEnoughMemoryError(
                        f"memory ran out at step {step + 1} in the exchange of gradients, which cannot be done again: "
                        "free some memory and go on, with more processes if need be."
                    ) from error
    return None if runtime.any(full) else logs


def _give_up(error: RuntimeError, step: int) -> NoReturn:
    """Where weights are shared, every pass is an exchange: the others wait in it, and it cannot be done again."""
    if out_of_memory(error):
        raise NotEnoughMemoryError(
            f"memory ran out at step {step + 1} among processes that share their weights: begin again with more "
            "micro_batches, or with more processes."
        ) from error
    with noticing_lost_processes():
        raise error


def _halved(recipe: Recipe, step: int, division: Division, *, again: bool, announce: bool) -> Division:
    size = recipe.batch_size // division.parts
    if again or size < 2:
        raise NotEnoughMemoryError(
            f"memory ran out at step {step + 1} with micro-batches of {size} images"
            f"{', which had been halved' if again else ''}: free some memory and go on, or begin again with more "
            "micro_batches."
        )
    if announce:
        _announce(f"memory ran out at step {step + 1} with micro-batches of {size} images: they are halved.")
    return division.halved()


def _announce(reason: str) -> None:
    warnings.warn(
        f"{reason} Batches keep their images, and images their noise; methods that average images or move texts do so "
        "over fewer images.",
        ChangedCourseWarning,
        stacklevel=2,
    )


def _resumed(
    directory: Path,
    raw: TreeModel,
    recipe: Recipe,
    optimiser: torch.optim.Optimizer,
    identity: str,
    runtime: Runtime,
) -> tuple[int, Division]:
    """The step to go on from, and how batches are divided, which a run keeps whatever processes it is resumed with."""
    reached = load_state(directory, raw, optimiser, identity)
    if runtime.differ(reached.step if reached else 0):
        raise ValueError(
            f"the processes find different states in {str(directory)!r}: give a directory that all of them share."
        )
    if reached is None:
        return 0, first_division(recipe, runtime.world)
    if runtime.is_main:
        adopt_state(directory, reached)  # all have read it: they have just compared their steps
    division = reached.division
    while division.parts < runtime.world:
        division = division.halved()
    if division.parts > recipe.batch_size:
        raise ValueError(
            f"{runtime.world} processes cannot share batches of {recipe.batch_size} images: start fewer processes."
        )
    if division != reached.division and runtime.is_main:
        _announce(
            f"batches were divided into {reached.division.parts}; for {runtime.world} processes they are divided into "
            f"{division.parts} from here on."
        )
    if runtime.shards and division.parts % runtime.world:
        raise ValueError(
            f"batches are divided into {division.parts}, which {runtime.world} processes that share their weights "
            "cannot do in step: start a number of processes that divides it."
        )
    return reached.step, division


def select_trained(raw: TreeModel, *, text: bool) -> None:
    """Let gradients reach the image encoder and, if `text`, the text projection; nothing else."""
    raw.requires_grad_(False)
    raw.image_encoder.requires_grad_(True)
    raw.text_projection.requires_grad_(text)


def adamw(raw: TreeModel, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with one group of images and one of texts; "factor" is a group's fraction of the learning rate."""
    parts = ((raw.image_encoder, 1.0), (raw.text_projection, recipe.text_lr))
    groups = [{"params": [p for p in part.parameters() if p.requires_grad], "factor": factor} for part, factor in parts]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
    )


class Frozen(nn.Module):
    """A copy of the model as it is now, without gradient: what FARE, PMG-AFT and AGFT compare with. `placed` puts it
    where this process computes."""

    def __init__(self, raw: TreeModel, placed: Callable[[TreeModel], TreeModel] = lambda model: model):
        super().__init__()
        self.model = placed(copy.deepcopy(raw).requires_grad_(False).eval())

    @torch.no_grad()
    def forward(self, images: Tensor) -> Scores:
        return self.model(images)


def _identity(raw: TreeModel, recipe: Recipe, data: TrainingData) -> str:
    """What a state file belongs to, as JSON: the recipe by field, the forest and the data."""
    content = {field.name: repr(getattr(recipe, field.name)) for field in fields(recipe)} | {
        "forest": raw.forest.fingerprint,
        "images": len(data.leaves),
        "head": repr(raw.head),
        "pretrained weights": weights_digest(raw),
    }
    if isinstance(data, ShardedData):
        content["shards"] = data.fingerprint
    return json.dumps(content, sort_keys=True)
