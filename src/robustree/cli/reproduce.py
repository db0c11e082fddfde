"""`robustree reproduce`: the paper's tables, as far as this machine goes, beside what was published."""

from __future__ import annotations

import math
import os
import platform
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console

from robustree import __version__
from robustree.auditing.rows import read_rows
from robustree.checkpoint import load_checkpoint
from robustree.cli.audit import audit_with_bar
from robustree.cli.endings import keeping
from robustree.cli.harden import harden_with_bar, is_finished
from robustree.cli.loading import Loaded, Source, choose_device, open_model, open_over
from robustree.cli.options import Device
from robustree.cli.parsing import nearest, parse
from robustree.cli.reproduce_print import print_plan, print_result, print_tables
from robustree.data import CATALOG, data_over
from robustree.processes import process_number
from robustree.reproducing import SCALES, TABLES, Backbone, PaperTable, Scale
from robustree.reproducing.commands import harden_command
from robustree.reproducing.jobs import Cell, Job, Prices, jobs_of, machine_lacks, prices
from robustree.reproducing.page import content_of, duration, write_page
from robustree.reproducing.place import Machine, Place, inspect_machine
from robustree.reproducing.results import figures, protocol, write_result
from robustree.reproducing.scales import ScaleName
from robustree.taxonomy import Forest
from robustree.training import Runtime


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which tables, at which scale, and where things are."""

    tables: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TABLE")] = ()
    """main, components, perturbation, negatives, trees, eps, attacks or backbones; a list of them if left out."""
    scale: ScaleName = "paper"
    """paper: CLIP on photographs, as published. embedded: the built-in model on the drawings of the package."""
    output: Path = Path("robustree-reproduce")
    """Where models, audits and tables go; finished rows are not made again."""
    data_root: Path | None = None
    """The folder with one entry a data set, called as in robustree data list: cifar10.tar, imagenet/, ..."""
    model: tuple[str, ...] = ()
    """Where a backbone is, as ViT-B/32=DIRECTORY; a model of the hub's cache if left out."""
    fetch: bool = False
    """Let models come from the hub."""
    images: int | None = None
    """At most so many images of each audited set, spread evenly over the classes."""
    steps: int | None = None
    """Optimiser steps of every hardening, in place of the recipe's."""
    micro_batches: int = 1
    """Parts in which a batch is computed, to save memory."""
    seed: int = 0
    hours: float = 24.0
    """A model whose hardening and audits would take longer than this is not begun."""
    step_seconds: float | None = None
    """Seconds that another machine takes for a training step of the first hardened row, with its whole batch; what it
    would need is then said for that machine."""
    plan: bool = False
    """Say what would be done and what lacks, and do nothing."""
    commands: bool = False
    """Print the robustree harden command of every row, for a launcher or another machine, and do nothing."""
    device: Device | None = None
    """cpu or cuda; the GPU if there is one, unless said here."""


def run(arguments: Sequence[str]) -> int:
    options = parse(Options, arguments, command="reproduce", about="Make the paper's tables, as far as possible here.")
    tables = [chosen_table(name) for name in dict.fromkeys(options.tables)]
    _check(options)
    if process_number()[1] > 1:
        raise ValueError(
            "reproduce is one process: start the commands that --commands prints with the launcher, then reproduce."
        )
    console = Console(highlight=False)
    if not tables:
        print_tables(TABLES.values(), console)
        return 0
    place = Place(
        scale=chosen_scale(options),
        directory=options.output / options.scale,
        data_root=options.data_root,
        fetch=options.fetch,
    )
    for table in tables:
        if options.commands:
            for candidate in table.candidates:
                if candidate.method is not None and candidate.backbone in place.scale.models:
                    print(shlex.join(harden_command(candidate, place)))
        else:
            _reproduce(table, place, options, console, command=shlex.join(["robustree", "reproduce", *arguments]))
    return 0


def chosen_table(name: str) -> PaperTable:
    """The table of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in TABLES:
        raise ValueError(f"there is no table {name!r}{nearest(name, list(TABLES))}: give {', '.join(TABLES)}.")
    return TABLES[name]


def chosen_scale(options: Options) -> Scale:
    """The scale with the models, images, steps and seed that were asked for.

    Raises:
        ValueError: --model names no backbone of the scale.
    """
    scale = SCALES[options.scale]
    models: dict[Backbone, str] = dict(scale.models)
    for word in options.model:
        backbone, equals, where = word.partition("=")
        known: list[Backbone] = [name for name in models if name == backbone]
        if not known or not equals or not where:
            raise ValueError(f"--model is {word!r}; write BACKBONE=WHERE, with {' or '.join(models)} as BACKBONE.")
        models[known[0]] = where
    base = replace(scale.base, seed=options.seed, micro_batches=options.micro_batches)
    base = replace(base, steps=options.steps or base.steps)
    return replace(scale, models=models, base=base, images=options.images or scale.images)


def _check(options: Options) -> None:
    for name in ("images", "steps"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise ValueError(f"--{name} is {value}; it counts from 1: give a positive number.")
    for name in ("hours", "step_seconds"):
        if (value := getattr(options, name)) is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} is {value:g}; give a positive number.")
    if options.data_root is not None and not options.data_root.is_dir():
        raise ValueError(f"--data-root is {str(options.data_root)!r}, which is no folder: check the path.")


def _reproduce(table: PaperTable, place: Place, options: Options, console: Console, *, command: str) -> None:
    """Plan a table, make what can be made here, and print it."""
    device = choose_device(options.device)
    jobs, priced = jobs_of(table, place), None
    if any(job.missing for job in jobs):
        priced = prices(jobs, place, device, step_seconds=options.step_seconds)
    machine = inspect_machine(device, place.directory)
    refused = {job.candidate.name: _refused(job, place, priced, machine, options.hours) for job in jobs}
    content = content_of(table, place, jobs, priced, refused)
    if priced:
        print_plan(content, console)
    if options.plan:
        return
    with keeping(f"finished rows stay in {place.directory}; run the same command to go on"):
        for job in jobs:
            if job.ready and not refused[job.candidate.name]:
                _make(job, place, device, command)
        content = content_of(table, place, jobs_of(table, place), priced, refused)
        path = write_page(place.directory, content | {"made": _made(device, command)})
    print_result(content, console)
    console.print(f"written  {path} and {path.with_suffix('.json').name}", soft_wrap=True)


def _made(device: torch.device, command: str) -> dict[str, Any]:
    """With what a table was made."""
    return {
        "command": command,
        "robustree": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {device.type}",
    }


def _refused(job: Job, place: Place, priced: Prices | None, machine: Machine, hours: float) -> str:
    """Why a job whose model and images are here is not begun; empty where it is."""
    price = priced.of(job, place, job.ready) if priced and job.ready else None
    if lacks := machine_lacks(job, price, place, machine):
        return f"needs {'; '.join(lacks)}"
    if price and price.whole.hours > hours:
        return f"takes {duration(price.whole.hours)} at most, longer than --hours {hours:g}"
    return ""


def _make(job: Job, place: Place, device: torch.device, command: str) -> None:
    """Harden a candidate if need be, then measure its cells one after the other."""
    candidate, recipe = job.candidate, place.scale.recipe(job.candidate)
    where, directory = place.scale.models[candidate.backbone], place.checkpoint(candidate)
    console = Console(stderr=True)
    if recipe is not None:
        data, forest = place.training() or place.scale.training, place.scale.forest(candidate)
        if not is_finished(directory, recipe, forest, data=data, model=where):
            harden_with_bar(
                open_model(where),
                data_over(data, forest),
                forest,
                recipe,
                directory,
                console=console,
                title=f"harden {candidate.name}",
                runtime=Runtime(cpu=device.type == "cpu"),
            )
    for cell in job.ready:
        _measure(job, cell, place, device, console, command)


def _measure(job: Job, cell: Cell, place: Place, device: torch.device, console: Console, command: str) -> None:
    """Audit one data set under one attack, and keep the figures."""
    started, record, scale = time.monotonic(), CATALOG[cell.data_set], place.scale
    forest = scale.audited_forest(record, cell.evaluation)
    model = _over(job, place, forest, record.prompt, device)
    value = place.audited(cell.data_set) or cell.data_set
    images = data_over(value, forest).audit(model.resolution)
    images = images.subset(min(scale.images or len(images.ids), len(images.ids)), seed=scale.base.seed)
    directory, plan = place.audit(cell.evaluation, cell.data_set), scale.plan(cell.evaluation)
    title = f"audit {job.candidate.name}: {cell.data_set}, {cell.evaluation.attack}"
    audit_with_bar([model], images, forest, plan, directory, console=console, title=title, command=command)
    found = figures(read_rows(directory), forest, job.candidate.name)
    wanted = protocol(scale, job.candidate, cell.evaluation, record)
    path = place.result(job.candidate, cell.evaluation, cell.data_set)
    write_result(path, wanted, found, time.monotonic() - started)


def _over(job: Job, place: Place, forest: Forest, prompt: str, device: torch.device) -> Loaded:
    """A candidate over the classes of a data set with that set's prompt, read by the head that was trained."""
    candidate = job.candidate
    if candidate.method is None:
        source = Source(candidate.name, place.scale.models[candidate.backbone])
        return open_over(source, forest, template=prompt, device=device)
    directory = place.checkpoint(candidate)
    checkpoint = load_checkpoint(directory)
    own = checkpoint.tree_model.over(forest, checkpoint.model.text_features, prompt)
    return Loaded(
        source=Source(candidate.name, str(directory)),
        resolution=checkpoint.model.image_encoder.preprocessing.resolution,
        heads=(own.to(device).requires_grad_(False).eval(),),
    )
