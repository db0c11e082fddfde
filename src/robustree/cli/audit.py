"""`robustree audit`: models under attack at every level, as rows, a gallery and a report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from robustree.attacks import Transfer
from robustree.auditing.audit import CHUNK, Status, Subject, audit
from robustree.auditing.checks import Check, worst
from robustree.auditing.checks.battery import Progress, run_checks
from robustree.auditing.curves import measure_curves
from robustree.auditing.exhibits import make_exhibits
from robustree.auditing.plan import LevelAttack, Passes, Plan
from robustree.auditing.protocols import ProtocolName
from robustree.cli.endings import Ended, keeping, sentence
from robustree.cli.loading import Loaded, Source, choose_device, choose_forest, open_over, sources
from robustree.cli.options import AttackName, Device, PGDOptions, ThreatOptions, level_attack
from robustree.cli.parsing import parse
from robustree.cli.progress import Bar
from robustree.cli.protocol import chosen_eps, chosen_protocol, print_published
from robustree.cli.report import show_report
from robustree.data import AuditImages, data_over
from robustree.objectives import Readout
from robustree.processes import LostProcessError, joined_processes, process_number
from robustree.taxonomy import Forest
from robustree.tree_model import TEMPLATE

CHECKS_SPEAK = 3
"""The exit code of --strict where a check fails or asks for a look."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """One audit."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """nano, hub ids, model directories or hardened checkpoints; name=path gives a name."""
    data: str = "emoji"
    """The images: emoji, a folder with one sub-folder a class, parquet, tar or CSV files, or name=PATH for a set of
    robustree data list."""
    trees: tuple[str, ...] = ()
    """Shipped trees of the data set by name (see tree list) or files; those of the checkpoints if left out."""
    other_trees: bool = False
    """Audit checkpoints with trees that they were not hardened with."""
    output: Path
    """Where rows and report go; an interrupted audit goes on from there, and further models can be added."""
    threat: ThreatOptions = field(default_factory=ThreatOptions)
    attacks: tuple[AttackName, ...] = ("pgd",)
    """Which attacks aim at every level. autoattack-fast is APGD on the cross-entropy and aimed at 9 wrong classes;
    autoattack-standard adds FAB-T and Square."""
    transfer_from: tuple[str, ...] = ()
    """Further models: the adversarial images that momentum PGD makes on each are shown to every audited model."""
    pgd: PGDOptions = field(default_factory=PGDOptions)
    protocol: ProtocolName | None = None
    """Measure as a published method was: its eps, attacks, number of images and prompts; its figures are printed in a
    table of their own."""
    images: int | None = None
    """How many images, spread evenly over the classes; all if left out."""
    readouts: tuple[Readout, ...] = ("direct",)
    """The decisions that are attacked."""
    stop: bool = False
    """Let an image leave an attack once its decision has changed: faster, same robust accuracy, weaker transfer."""
    share: bool = False
    """Let AutoAttack count, at every level, what it found at any other: fewer passes, never a higher robust accuracy;
    where an attack lands can then not be read."""
    checks: bool = True
    """Measure in 27 ways whether the figures can be trusted; what was found is printed and in the report."""
    strict: bool = False
    """End with exit code 3 if a check fails or asks for a look."""
    curves: bool = False
    """Measure robust accuracy against eps and against the steps of PGD, on 64 of the images."""
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
    if options.strict and not options.checks:
        raise ValueError("--strict asks for the checks, and --no-checks leaves them out: give one of them.")
    protocol, record, template, attacks = None, None, options.template, []
    if options.protocol is not None:
        set_too = [
            f"--{name.replace('_', '-')}"
            for name in ("attacks", "transfer_from", "images", "template", "readouts", "pgd", "seed")
            if getattr(options, name) != getattr(Options(models=(), output=options.output), name)
        ]
        if set_too:
            raise ValueError(f"--protocol sets {', '.join(set_too)} too: give one of them.")
        protocol, record = chosen_protocol(options.protocol, options.data)
        # A default that was not typed is no wish.
        typed = any(word.partition("=")[0] == "--threat.eps" for word in arguments)
        eps = chosen_eps(protocol, options.threat.eps if typed else None)
        options = replace(
            options,
            threat=replace(options.threat, eps=eps),
            images=protocol.image_count(record),
            seed=protocol.seed,
        )
        template, attacks = protocol.templates(record), list(protocol.attacks_on(record))
    forest = choose_forest(named, options.trees, options.data, other_trees=options.other_trees)

    def opened(source: Source) -> Loaded:
        return open_over(source, forest, template=template, device=device)

    attacks = attacks or [level_attack(name, options.pgd.attack()) for name in dict.fromkeys(options.attacks)]
    moving = replace(options.pgd.attack(), momentum=1.0)
    for source in sources(options.transfer_from) if options.transfer_from else ():
        transfer = Transfer(attack=moving, sources=(opened(source).model,), name=f"from-{source.name}")
        attacks.append(LevelAttack(transfer))
    plan = Plan(
        threat=options.threat.threat(),
        attacks=tuple(attacks),
        all_levels=None if protocol else options.pgd.attack(),
        readouts=options.readouts,
        stop=options.stop,
        share=options.share,
        batch_size=options.batch_size,
        seed=options.seed,
    )
    data = data_over(options.data, forest, native=protocol is None or protocol.native)
    loaded = [opened(source) for source in named]
    images = data.audit(max(model.resolution for model in loaded)).subset(options.images)
    command = shlex.join(["robustree", "audit", *arguments])
    subjects, folder = subjects_of(loaded), options.output
    rank, _ = process_number()
    console = Console(stderr=True, quiet=rank > 0)
    audit_with_bar(loaded, images, forest, plan, folder, console=console, title="audit", command=command)
    if rank > 0:
        return 0
    checks: list[Check] = []
    with keeping(f"all rows are in {folder}; run the same command to go on"):
        if options.curves:
            with _following(console, "curves", len(images.ids)) as curve_status:
                measure_curves(subjects, images, forest, plan, folder, report=curve_status)
        if options.checks:
            with _following(console, "checks") as check_status:
                checks = run_checks(subjects, images, forest, plan, folder, report=check_status)
        if options.gallery:
            make_exhibits(subjects, images, forest, plan, folder, options.gallery)
        show_report(folder)
        if protocol is not None and record is not None:
            print_published(protocol, record, Console(highlight=False, markup=False))
    return CHECKS_SPEAK if options.strict and worst(checks) in ("fail", "flag") else 0


@contextmanager
def _following(console: Console, title: str, images: int = 0) -> Iterator[Callable[[Status | Progress], None]]:
    """A progress bar for parts of equal work, and what they report to."""
    with Bar(console, title, 1.0) as bar:

        def report(status: Status | Progress) -> None:
            fresh = status.images if isinstance(status, Status) else 1
            work = 1 / status.total if fresh else 0.0
            bar.update(status.done / status.total, images=min(fresh, images), work=work, doing=status.doing)

        yield report


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
    """Write the rows behind a progress bar, together with the other processes if a launcher has started several.

    Raises:
        Ended: interrupted (130, 143, 138), the disk is full or a process of the audit was lost (1).
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

        try:
            with joined_processes() as processes:
                audit(subjects, images, forest, plan, directory, command=command, report=report, processes=processes)
        except LostProcessError as error:
            raise Ended(f"error: {sentence(error)}; {kept}.", 1) from error


def _works(subjects: Sequence[Subject], count: int, forest: Forest, plan: Plan) -> Iterator[float]:
    """The passes through a model that each chunk of an audit takes at most, in the audit's order; a gradient takes one
    and a half."""
    size = plan.batch_size * CHUNK
    for _ in subjects:
        for runs in plan.together(forest):
            passes = [run.attack.passes if run.attack else Passes(1, 0) for run in runs]
            work = sum(each.forwards + 1.5 * each.image_gradients for each in passes)
            for start in range(0, count, size):
                yield work * min(size, count - start)
