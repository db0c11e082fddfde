"""`robustree quickstart`: audit the built-in model, harden it twice at equal budget, audit both, compare."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from robustree.attacks import PGD, Threat
from robustree.auditing.exhibits import make_exhibits
from robustree.auditing.metrics import compare
from robustree.auditing.plan import LevelAttack, Plan
from robustree.auditing.report.page import write_report
from robustree.auditing.rows import read_rows
from robustree.cli.audit import audit_with_bar, subjects_of
from robustree.cli.endings import keeping
from robustree.cli.harden import harden_with_bar, is_finished
from robustree.cli.loading import Loaded, Source, choose_device, open_model, open_over
from robustree.cli.options import Device
from robustree.cli.parsing import parse
from robustree.cli.report import show_report
from robustree.cli.table import reading
from robustree.data import emoji
from robustree.geometry import Poincare, Sphere
from robustree.methods import Hierarchical, TeCoA
from robustree.taxonomy import EMOJI_TREES
from robustree.training import Recipe, Runtime


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Everything that the quickstart decides."""

    trees: tuple[str, ...] = ("unicode", "wordnet")
    eps: float = 4 / 255
    steps: int = 150
    batch_size: int = 64
    lr: float = 1e-3
    training_attack_steps: int = 3
    training_step_size: float = 0.5
    curvature: float = 1.0
    attack_steps: int = 20
    images: int = 131
    exhibits: int = 6
    save_every: int = 25


DEFAULTS = Quickstart()


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much of it."""

    output: Path = Path("robustree-quickstart")
    """Where everything goes; finished phases are not done again."""
    full: bool = False
    """All five trees and all 524 held-out images: about ten times the work."""
    images: int | None = None
    """How many held-out images are audited; 131 unless --full."""
    steps: int = DEFAULTS.steps
    """Optimiser steps of each hardening."""
    seed: int = 0
    model: str = "nano"
    """The model to harden: the built-in one, a hub id or a directory."""
    device: Device | None = None
    """cpu or cuda; the GPU if there is one, unless said here."""


def run(arguments: Sequence[str]) -> int:
    options = parse(Options, arguments, command="quickstart", about="Audit, harden twice, audit again, compare.")
    device, data = choose_device(options.device), emoji()
    forest = data.forest(EMOJI_TREES if options.full else DEFAULTS.trees)
    recipes = recipes_of(options)
    attack = PGD(steps=DEFAULTS.attack_steps)
    plan = Plan(threat=Threat(eps=DEFAULTS.eps), attacks=(LevelAttack(attack),), all_levels=attack, seed=options.seed)
    plain = Source(Path(options.model).name, options.model)
    hardened = {name: Source(name, str(options.output / name)) for name in recipes}
    done = {
        name: is_finished(options.output / name, recipe, forest, data=data.name, model=options.model)
        for name, recipe in recipes.items()
    }
    first = open_over(plain, forest, device=device)
    images = data.audit(first.resolution).subset(options.images or (None if options.full else DEFAULTS.images))
    console = Console(stderr=True)
    command = shlex.join(["robustree", "quickstart", *arguments])

    def measure(model: Loaded) -> None:
        title = f"audit {model.source.name}"
        audit_with_bar([model], images, forest, plan, options.output, console=console, title=title, command=command)

    with keeping(f"what is finished stays in {options.output}; run the same command to go on"):
        measure(first)
        if not all(done.values()):  # somebody new shall see something break before the longer part begins
            make_exhibits(subjects_of([first]), images, forest, plan, options.output, DEFAULTS.exhibits)
            page = write_report(options.output).html
            console.print(
                f"first pictures       {page}: what broke so far; the page is whole at the end", soft_wrap=True
            )
        for name, recipe in recipes.items():
            if not done[name]:
                harden_with_bar(
                    open_model(options.model),
                    data,
                    forest,
                    recipe,
                    options.output / name,
                    console=console,
                    title=f"harden {name}",
                    runtime=Runtime(cpu=device.type == "cpu"),
                    save_every=DEFAULTS.save_every,
                )
        loaded = [first, *(open_over(source, forest, device=device) for source in hardened.values())]
        for model in loaded[1:]:
            measure(model)
        make_exhibits(subjects_of(loaded), images, forest, plan, options.output, DEFAULTS.exhibits)
        figures = show_report(options.output, whole=False)
    heads = [subjects_of([model])[0].head for model in loaded[1:]]
    comparison = compare(read_rows(options.output), forest, "hierarchical", heads[1], "tecoa", heads[0])
    print("\n" + textwrap.fill(reading(figures, comparison), min(100, console.width), break_on_hyphens=False))
    return 0


def recipes_of(options: Options) -> dict[str, Recipe]:
    """TeCoA, which sees leaves alone, and the hierarchical method, with equal steps, batches, threat, seed and rate."""
    equal = Recipe(
        method=TeCoA(),
        space=Sphere(),
        threat=Threat(eps=DEFAULTS.eps),
        attack=PGD(steps=DEFAULTS.training_attack_steps, step_size=DEFAULTS.training_step_size, best=False),
        steps=options.steps,
        batch_size=DEFAULTS.batch_size,
        lr=DEFAULTS.lr,
        seed=options.seed,
    )
    hierarchical = replace(equal, method=Hierarchical(), space=Poincare(curvature=DEFAULTS.curvature))
    return {"tecoa": equal, "hierarchical": hierarchical}
