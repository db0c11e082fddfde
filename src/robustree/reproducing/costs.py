"""What hardening and audits would take, by arithmetic from counted FLOPs and one measured step."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from robustree.auditing.plan import Passes
from robustree.data import Record
from robustree.models.encoder import CLIP_MEAN, CLIP_STD, ImageEncoder, Preprocessing
from robustree.reproducing.counting import Footprint, build_clip, step_passes
from robustree.reproducing.long_runs import BYTES_OF_CHECKPOINT, BYTES_OF_STATE, Assumptions, estimate
from robustree.reproducing.scales import Scale
from robustree.reproducing.tables import Evaluation
from robustree.taxonomy import Forest
from robustree.training import Recipe, training_step
from robustree.training.loop import Frozen, select_trained
from robustree.tree_model import Head, TreeModel

IMAGE_BYTES = 1e5
"""Of an image on disk, where the data are not here to be looked at: an assumption."""
_STATES = 2  # that a run keeps
_COPIES = 5  # of the encoder in fp32: weights, gradients, two moments, and the frozen model
_WORK = {"cpu": 3e11, "cuda": 3e13}  # FLOPs of the measured step, about: seconds


@dataclass(frozen=True, kw_only=True)
class Speed:
    """FLOPs a second while a step of `images` images took `seconds`; `what` says of what and on what."""

    flops: float
    seconds: float
    images: int
    what: str


@dataclass(frozen=True, kw_only=True)
class Cost:
    """FLOPs, hours of one device, and bytes of memory and disk; at most, since attacked images may leave early."""

    flops: float
    hours: float
    memory: float
    disk: float


def measure_speed(
    config: dict, counted: Footprint, recipe: Recipe, forest: Forest, device: torch.device, *, what: str
) -> Speed:
    """Take the time of one training step of a recipe with a CLIP of that configuration and random weights."""
    model = build_clip(config, device)
    side = int(model.config.vision_config.image_size)  # type: ignore[union-attr,arg-type]
    fit = Preprocessing(resolution=side, mean=CLIP_MEAN, std=CLIP_STD)
    encoder = ImageEncoder(model.vision_model, model.visual_projection, fit).to(device)  # type: ignore[arg-type]
    projection: torch.nn.Linear = model.text_projection  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(len(forest.names), projection.in_features, generator=generator).to(device)
    head = Head(space=recipe.space, scale=1.0, depths=recipe.depths)
    tree_model = TreeModel(encoder, projection, features, forest, head, image_norm=1.0).to(device)
    select_trained(tree_model, text=recipe.method.trains_text)
    frozen = Frozen(tree_model)
    flops = counted.flops(step_passes(recipe, forest))
    count = max(2, min(recipe.batch_size, round(_WORK[device.type] / flops)))
    images = torch.rand(count, 3, side, side, generator=generator).to(device)
    leaves = torch.randint(forest.leaf_count, (count,), generator=generator).to(device)

    def step(number: int) -> None:
        loss, _ = training_step(
            tree_model,
            tree_model,
            frozen,
            recipe.method,
            recipe.attack,
            recipe.threat,
            images[:number],
            leaves[:number],
            generator,
        )
        loss.backward()
        float(loss.detach())  # waits for the device

    step(1)  # warms up
    started = time.perf_counter()
    step(count)
    seconds = time.perf_counter() - started
    return Speed(flops=count * flops / seconds, seconds=seconds, images=count, what=what)


def given_speed(seconds: float, counted: Footprint, recipe: Recipe, forest: Forest, *, what: str) -> Speed:
    """The speed of a machine that takes so many seconds for a step of a recipe with its whole batch."""
    flops = recipe.batch_size * counted.flops(step_passes(recipe, forest))
    return Speed(flops=flops / seconds, seconds=seconds, images=recipe.batch_size, what=what)


def hardening_cost(recipe: Recipe, forest: Forest, counted: Footprint, speed: Speed) -> Cost:
    """A whole run on one device: memory of a micro-batch, disk of two states and the checkpoint."""
    an_image = counted.flops(step_passes(recipe, forest))
    images = recipe.steps * recipe.batch_size
    run = Assumptions(
        step_seconds=an_image * recipe.batch_size / speed.flops,
        batch_size=recipe.batch_size,
        gpus=1,
        parameters=counted.encoder,
        images=images,
        epochs=1.0,
        image_bytes=IMAGE_BYTES,
        efficiency=1.0,
        gpu_failure_hours=5e4,
        write_bytes=2e9,
        restart_seconds=300.0,
    )
    at_once = recipe.batch_size // recipe.micro_batches
    return Cost(
        flops=images * an_image,
        hours=estimate(run, 1).gpu_hours,
        memory=at_once * counted.activations + BYTES_OF_CHECKPOINT * (_COPIES * counted.encoder + counted.model),
        disk=_STATES * BYTES_OF_STATE * counted.encoder + BYTES_OF_CHECKPOINT * counted.model,
    )


def audit_cost(scale: Scale, evaluation: Evaluation, record: Record, counted: Footprint, speed: Speed) -> Cost:
    """One evaluation of one data set; images that are decided early make it cheaper."""
    attack, plan = scale.attacks[evaluation.attack].passes, scale.plan(evaluation)
    aims = len(scale.audited_forest(record, evaluation).cuts())
    an_image = counted.flops(Passes(1 + aims * attack.forwards, aims * attack.image_gradients))
    flops = scale.image_count(record) * an_image
    return Cost(
        flops=flops,
        hours=flops / speed.flops / 3600,
        memory=plan.batch_size * counted.activations + BYTES_OF_CHECKPOINT * counted.model,
        disk=0.0,
    )


def total(costs: Iterable[Cost]) -> Cost:
    """Of parts that follow each other."""
    parts = list(costs)
    return Cost(
        flops=sum(part.flops for part in parts),
        hours=sum(part.hours for part in parts),
        memory=max((part.memory for part in parts), default=0.0),
        disk=sum(part.disk for part in parts),
    )
