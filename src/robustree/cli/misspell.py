"""`robustree misspell`: the spelling of each class name that costs most decisions of a level."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustree.attacks import CharacterEdits
from robustree.auditing.audit import HEAD_NAMES, Status
from robustree.auditing.spelling import Spelling, Tally, misspelled, tally, worst_spellings
from robustree.checkpoint import load_checkpoint
from robustree.cli.endings import keeping
from robustree.cli.loading import Source, choose_device, choose_forest, find_level, open_model, sources
from robustree.cli.options import Device
from robustree.cli.parsing import parse
from robustree.cli.progress import Bar
from robustree.data import data_over
from robustree.models import VisionLanguageModel
from robustree.taxonomy import Forest
from robustree.tree_model import TEMPLATE, TreeModel, build_tree_model
from robustree.writing import write_whole

FILE = "spelling.json"
_SHOWN = 20  # lines of the printed table; spelling.json has all


@dataclass(frozen=True, kw_only=True)
class Options:
    """One search for misspellings."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """nano, a hub id, a model directory or a hardened checkpoint, which is read by its own head."""
    data: str = "emoji"
    """The images: emoji, a folder with one sub-folder a class, parquet, tar or CSV files, or name=PATH for a set of
    robustree data list."""
    level: str
    """The level whose names are misspelled: leaf, or one such as unicode/1."""
    edits: int = 1
    """Characters put in, replaced or deleted."""
    budget: int = 400
    """Spellings of a name that are tried at most."""
    images: int | None = None
    """How many images, spread evenly over the classes; all if left out."""
    trees: tuple[str, ...] = ()
    """Shipped trees (unicode wordnet place size words) or files; those of the checkpoint if left out."""
    other_trees: bool = False
    """Use a checkpoint with trees that it was not hardened with."""
    output: Path
    """Where spelling.json goes."""
    batch_size: int = 64
    """Images or prompts that are encoded at a time."""
    seed: int = 0
    template: str = TEMPLATE
    """The prompt of a class for a plain model; a checkpoint brings its own."""
    device: Device | None = None
    """cpu or cuda; the GPU if there is one, unless said here."""


def run(arguments: Sequence[str]) -> int:
    options = parse(Options, arguments, command="misspell", about="Find the worst spelling of every name of a level.")
    attack = CharacterEdits(edits=options.edits, budget=options.budget)
    if options.batch_size < 1:
        raise ValueError(f"--batch-size is {options.batch_size}; it is a number of images and prompts, from 1.")
    device, (source,) = choose_device(options.device), sources([options.model])
    forest = choose_forest([source], options.trees, options.data, other_trees=options.other_trees)
    if options.level == "all":
        labels = ", ".join(cut.label for cut in forest.cuts())
        raise ValueError(f"--level is all, but the names of one level are misspelled: give one of {labels}.")
    (cut,) = find_level(forest, options.level)
    data = data_over(options.data, forest)
    plain, model, template = _opened(source, forest, options.template, device)
    images = data.audit(plain.image_encoder.preprocessing.resolution).subset(options.images)
    names = [forest.names[node] for node in cut.nodes]
    with keeping("nothing was saved"), Bar(Console(stderr=True), "misspell", len(names) * (attack.budget + 1)) as bar:
        before = 0

        def report(status: Status) -> None:
            nonlocal before
            bar.update(status.done, images=status.images, work=status.done - before, doing=status.doing)
            before = status.done

        spellings = worst_spellings(
            model,
            plain.text_features,
            images.pixels,
            images.leaves,
            cut,
            attack,
            template=template,
            batch_size=options.batch_size,
            generator=torch.Generator().manual_seed(options.seed),
            report=report,
        )
        worst = {spelling.node: spelling.worst for spelling in spellings}
        every = misspelled(model, worst, plain.text_features, template=template)
        together = tally(every, images.pixels, images.leaves, cut, batch_size=options.batch_size)
    shared = sum(count for count in Counter(worst.values()).values() if count > 1)
    record = {
        "command": shlex.join(["robustree", "misspell", *arguments]),
        "model": options.model,
        "head": HEAD_NAMES[model.head.space.name],
        "template": template,
        "data": options.data,
        "images": len(images.ids),
        "level": cut.label,
        "edits": attack.edits,
        "budget": attack.budget,
        "alphabet": attack.alphabet,
        "seed": options.seed,
        "forest": forest.fingerprint,
        "before": _rate(spellings[0].before.level),
        "together": {**_rate(together), "names_spelled_alike": shared},
        "names": [_entry(spelling) for spelling in spellings],
    }
    write_whole(options.output / FILE, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    _show(spellings, together, options)
    return 0


def _opened(
    source: Source, forest: Forest, template: str, device: torch.device
) -> tuple[VisionLanguageModel, TreeModel, str]:
    """The model, the same over the forest with its own head, and its template."""
    if source.checkpoint:
        checkpoint = load_checkpoint(source.checkpoint, forest=forest)
        plain, model, template = checkpoint.model, checkpoint.tree_model, checkpoint.template
    else:
        plain = open_model(source.where)
        side = plain.image_encoder.preprocessing.resolution
        # The cosine head does not depend on the images that set the scale of others.
        model = build_tree_model(plain, forest, images=torch.full((1, 3, side, side), 0.5), template=template)
    return plain, model.to(device).requires_grad_(False).eval(), template


def _rate(counted: Tally) -> dict[str, Any]:
    """Counts, the accuracy and its 95 % Wilson interval; null where there are no images."""
    low, high = counted.interval or (None, None)
    return {**counted._asdict(), "accuracy": counted.accuracy, "low": low, "high": high}


def _entry(spelling: Spelling) -> dict[str, Any]:
    return {
        "node": spelling.node,
        "name": spelling.name,
        "worst": spelling.worst,
        "own_images": {"before": _rate(spelling.before.own), "after": _rate(spelling.after.own)},
        "level": {"before": _rate(spelling.before.level), "after": _rate(spelling.after.level)},
        "scored": spelling.scored,
        "candidates": spelling.candidates,
        "share": spelling.share,
    }


def _show(spellings: Sequence[Spelling], together: Tally, options: Options) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", caption_justify="left")
    for name in ("name", "worst spelling"):
        table.add_column(name, overflow="fold")
    for name in ("its images", options.level, "lost", "tried"):
        table.add_column(Text(name), justify="right", no_wrap=True)
    ranked = sorted(spellings, key=lambda spelling: (-spelling.loss, spelling.node))
    for spelling in ranked[:_SHOWN]:
        table.add_row(
            Text(spelling.name),
            _marked(spelling.name, spelling.worst),
            _change(spelling.before.own, spelling.after.own),
            _change(spelling.before.level, spelling.after.level),
            Text(str(spelling.loss), "bold red" if spelling.loss > 0 else "dim"),
            Text(f"{100 * spelling.share:.0f} %", "dim"),
        )
    table.caption = Text(f"right decisions before → after, % of images; lost: decisions, of {together.images}", "dim")
    console = Console()
    console.print(table)
    if len(ranked) > _SHOWN:
        console.print(f"... and {len(ranked) - _SHOWN} more in {FILE}", style="dim", highlight=False)
    both = _change(spellings[0].before.level, together)
    console.print(Text(f"all {len(spellings)} names misspelled at once: {both} % right at {options.level}"))
    console.print(Text(str(options.output / FILE)), soft_wrap=True)


def _marked(name: str, worst: str) -> Text:
    """The spelling with the letters that are new in colour; a mark stands where letters are gone."""
    text = Text()
    for kind, low, high, start, end in SequenceMatcher(None, name, worst, autojunk=False).get_opcodes():
        if kind == "equal":
            text.append(worst[start:end])
        elif kind == "delete":
            text.append("·" * (high - low), "red")
        else:
            text.append(worst[start:end].replace(" ", "␣"), "bold red")
    return text


def _change(before: Tally, after: Tally) -> Text:
    return Text.assemble((f"{_percent(before)} → ", "dim"), (_percent(after), "red" if after < before else ""))


def _percent(counted: Tally) -> str:
    return "–" if counted.accuracy is None else f"{100 * counted.accuracy:.1f}"
