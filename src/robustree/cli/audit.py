"""`robustree audit`: models under attack at every level, as rows, a gallery and a report."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from robustree.auditing.audit import Loss, Plan, Status, Subject, audit
from robustree.auditing.exhibits import make_exhibits
from robustree.cli.endings import keeping
from robustree.cli.loading import Loaded, choose_device, choose_forest, data_set, open_over, sources
from robustree.cli.options import AttackOptions, Device, ThreatOptions
from robustree.cli.parsing import parse
from robustree.cli.progress import Bar
from robustree.cli.report import show_report
from robustree.data import AuditImages
from robustree.objectives import Readout
from robustree.taxonomy import Forest
from robustree.tree_model import TEMPLATE


@dataclass(frozen=True, kw_only=True)
class Options:
    """One audit."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """nano, hub ids, model directories or hardened checkpoints; name=path gives a name."""
    data: str = "emoji"
    """The images: emoji, or a folder with one sub-folder a class."""
    trees: tuple[str, ...] = ()
    """Shipped trees (unicode wordnet place size words) or files; those of the checkpoints if left out."""
    other_trees: bool = False
    """Audit checkpoints with trees that they were not hardened with."""
    output: Path
    """Where rows and report go; an interrupted audit goes on from there, and further models can be added."""
    threat: ThreatOptions = field(default_factory=ThreatOptions)
    attack: AttackOptions = field(default_factory=AttackOptions)
    images: int | None = None
    """How many images, spread evenly over the classes; all if left out."""
    losses: tuple[Loss, ...] = ("margin",)
    """What the attacks maximise at each level."""
    readouts: tuple[Readout, ...] = ("direct",)
    """The decisions that are attacked."""
    stop: bool = False
    """Let an image leave an attack once its decision has changed: faster, same robust accuracy, weaker transfer."""
    gallery: int = 6
    """Images in the report's gallery."""
    batch_size: int = 64
    seed: int = 0
    template: str = TEMPLATE
    """The prompt of a class for plain models; checkpoints bring their own."""
    device: Device | None = None
    """cpu or cuda; the GPU if there is one, unless said here."""


def run(arguments: Sequence[str]) -> int:
    options = parse(Options, arguments, command="audit", about="Attack models at every level of label trees.")
    device, named = choose_device(options.device), sources(options.models)
    if options.gallery < 0:
        raise ValueError(f"--gallery is {options.gallery}; it is a number of images: 0 for none.")
    plan = Plan(
        threat=options.threat.threat(),
        attack=options.attack.attack(),
        losses=options.losses,
        readouts=options.readouts,
        stop=options.stop,
        batch_size=options.batch_size,
        seed=options.seed,
    )
    forest = choose_forest(named, options.trees, options.data, other_trees=options.other_trees)
    data = data_set(options.data, forest)
    loaded = [open_over(source, forest, template=options.template, device=device) for source in named]
    images = data.audit(max(model.resolution for model in loaded)).subset(options.images)
    audit_with_bar(
        loaded,
        images,
        forest,
        plan,
        options.output,
        console=Console(stderr=True),
        title="audit",
        command=shlex.join(["robustree", "audit", *arguments]),
    )
    if options.gallery:
        make_exhibits(subjects_of(loaded), images, forest, plan, options.output, options.gallery)
    show_report(options.output)
    return 0


def subjects_of(loaded: Sequence[Loaded]) -> list[Subject]:
    """Every model with every head that is read."""
    return [Subject(model.source.name, head) for model in loaded for head in model.heads]


def audit_with_bar(
    loaded: Sequence[Loaded],
    images: AuditImages,
    forest: Forest,
    plan: Plan,
    directory: Path,
    *,
    console: Console,
    title: str,
    command: str,
) -> None:
    """Write the rows behind a progress bar.

    Raises:
        Ended: interrupted (130, 143), or the disk is full (1).
        ValueError: the directory holds another audit, or rows of a model with the same name and other weights.
    """
    subjects = subjects_of(loaded)
    works = list(_works(subjects, len(images.ids), forest, plan))
    kept = f"finished rows stay in {directory}; run the same command to go on"
    with keeping(kept), Bar(console, title, sum(works)) as bar:
        completed = 0.0

        def report(status: Status) -> None:
            nonlocal completed
            work = works[status.done - 1]
            completed += work
            bar.update(completed, images=status.images, work=work if status.images else 0, doing=status.doing)

        audit(subjects, images, forest, plan, directory, command=command, report=report)


def _works(subjects: Sequence[Subject], count: int, forest: Forest, plan: Plan) -> Iterator[float]:
    """The passes through a model that each chunk of an audit takes, in the audit's order."""
    for _ in subjects:
        for _, attacked, _ in plan.runs(forest):
            passes = 1 + 2.5 * plan.attack.steps * plan.attack.restarts if attacked else 1
            for start in range(0, count, plan.batch_size):
                yield passes * min(plan.batch_size, count - start)
