"""`robustree attack`: adversarial PNGs at the images' own size, checked after they were saved."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from zlib import crc32

import torch
import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from robustree.attacks.rounding import round_to_bytes
from robustree.auditing.audit import predictions
from robustree.cli.endings import keeping
from robustree.cli.images import Picture, batches, find_pictures
from robustree.cli.loading import choose_device, choose_forest, find_level, open_over, sources
from robustree.cli.options import AttackName, Device, PGDOptions, ThreatOptions, level_attack
from robustree.cli.parsing import nearest, parse
from robustree.cli.progress import Bar
from robustree.data import read_image
from robustree.data.decoding import png_bytes
from robustree.goals import Goal
from robustree.taxonomy import Cut, Forest
from robustree.tree_model import TEMPLATE, Scores, TreeModel
from robustree.writing import write_whole

_SHOWN = 20  # lines of the printed table; attack.json has all


@dataclass(frozen=True, kw_only=True)
class Options:
    """One attack on a folder of images."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """nano, a hub id, a model directory or a hardened checkpoint."""
    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """A folder with one sub-folder a class, or with images: then the model's own clean decision is attacked."""
    level: str = "leaf"
    """leaf, a level such as unicode/1, or all (every level at once)."""
    towards: str | None = None
    """What images shall be taken for: a node of the level or, with --level leaf, a superclass (any leaf below it); any
    wrong decision if left out."""
    trees: tuple[str, ...] = ()
    """Shipped trees (unicode wordnet place size words) or files; those of the checkpoint if left out."""
    other_trees: bool = False
    """Use a checkpoint with trees that it was not hardened with."""
    output: Path
    """Where PNGs and attack.json go."""
    threat: ThreatOptions = field(default_factory=ThreatOptions)
    attack: AttackName = "pgd"
    """Which attack; autoattack-fast and -standard are cascades."""
    pgd: PGDOptions = field(default_factory=PGDOptions)
    seed: int = 0
    template: str = TEMPLATE
    """The prompt of a class for a plain model."""
    device: Device | None = None
    """cpu or cuda; the GPU if there is one, unless said here."""


def run(arguments: Sequence[str]) -> int:
    options = parse(Options, arguments, command="attack", about="Write adversarial PNGs for a folder of images.")
    device, (source,) = choose_device(options.device), sources([options.model])
    data = "emoji" if options.model == "nano" and not options.trees else str(options.images)
    forest = choose_forest([source], options.trees, data, other_trees=options.other_trees)
    cuts = find_level(forest, options.level)
    towards = None if options.towards is None else _node(forest, cuts, options.towards)
    pictures = find_pictures(options.images, forest)
    if options.output.resolve() == options.images.resolve():
        raise ValueError("--output is the folder of the images; give another one, so that no original is overwritten.")
    names = [_png_name(picture) for picture in pictures]
    double = next((name for name in names if names.count(name) > 1), None)
    if double:
        raise ValueError(f"two images would both be saved as {double!r}: rename one of them.")
    model = open_over(source, forest, template=options.template, device=device).model
    records: list[dict[str, Any]] = []
    kept = f"the PNGs that were written stay in {options.output}, without an attack.json"
    with keeping(kept), Bar(Console(stderr=True), "attack", len(pictures)) as bar:
        for group, images in batches(pictures):
            records += _attack(model, group, images.to(device), forest, cuts, towards, options)
            bar.update(len(records), images=len(group), work=len(group), doing=group[-1].name)
    record = {
        "command": shlex.join(["robustree", "attack", *arguments]),
        "model": options.model,
        "level": options.level,
        "towards": options.towards,
        "threat": {"eps": options.threat.eps, "norm": options.threat.norm},
        "forest": forest.fingerprint,
        "images": records,
    }
    write_whole(options.output / "attack.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    _show(records, cuts, options)
    return 0


def _node(forest: Forest, cuts: Sequence[Cut], name: str) -> int | tuple[int, ...]:
    """The index of a node of one level by its name; of all leaves below it, if the level is the leaves'."""
    if len(cuts) > 1:
        raise ValueError("--towards needs one level; give --level leaf or one such as unicode/1, not all.")
    names = [forest.names[node] for node in cuts[0].nodes]
    if name not in names and cuts[0].level == 0:
        for cut in forest.cuts():
            inside = [forest.names[node] for node in cut.nodes]
            if name in inside:
                return tuple(leaf for leaf, node in enumerate(cut.of_leaf) if node == inside.index(name))
    if name not in names:
        shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        raise ValueError(f"level {cuts[0].label} has no node {name!r}{nearest(name, names)}: its nodes are {shown}.")
    return names.index(name)


def _attack(
    model: TreeModel,
    group: Sequence[Picture],
    clean: Tensor,
    forest: Forest,
    cuts: tuple[Cut, ...],
    towards: int | tuple[int, ...] | None,
    options: Options,
) -> list[dict[str, Any]]:
    """Attack a batch, save it, read it again, and say what the model sees before and after."""
    threat, before = options.threat.threat(), _decide(model, clean, forest)
    leaves = [picture.leaf for picture in group]
    truth = before
    if None not in leaves:
        truth = {cut.label: torch.tensor([cut.of_leaf[leaf or 0] for leaf in leaves]) for cut in cuts}
    truth = {label: values.to(clean.device) for label, values in truth.items()}
    goal = Goal(cuts, truth, towards)
    generator = torch.Generator().manual_seed(crc32(f"{options.seed}/{options.level}/{group[0].name}".encode()))
    chosen = level_attack(options.attack, options.pgd.attack())
    made = chosen.attack(model, clean, goal.objective(chosen.loss), threat, generator=generator)
    found = goal.reached(_decide(model, made, forest))
    rounded = round_to_bytes(made, clean, threat, works=lambda x: goal.reached(_decide(model, x, forest)))
    files = [options.output / _png_name(picture) for picture in group]
    for file, image in zip(files, rounded.images, strict=True):
        write_whole(file, png_bytes(image))
    again = torch.stack([read_image(file) for file in files]).to(clean.device).float() / 255
    after = _decide(model, again, forest)
    reached_before, kept = goal.reached(before), goal.reached(after)
    distances, valid = threat.distance(again, clean), threat.contains(again, clean)
    return [
        {
            "image": picture.name,
            "file": _png_name(picture),
            "truth": None if picture.leaf is None else _names(forest, cuts, truth, i),
            "before": _names(forest, cuts, before, i),
            "after": _names(forest, cuts, after, i),
            "reached_before": bool(reached_before[i]),
            "reached": bool(found[i]),
            "kept": bool(kept[i]),
            "rounding": rounded.manners[i],
            "distance": float(distances[i]),
            "valid": bool(valid[i]),
        }
        for i, picture in enumerate(group)
    ]


def _png_name(picture: Picture) -> str:
    """The name of a picture's PNG: "fox.png" stays, "fox.jpg" becomes "fox.jpg.png"."""
    return picture.name if picture.file.suffix.lower() == ".png" else f"{picture.name}.png"


@torch.no_grad()
def _decide(model: TreeModel, images: Tensor, forest: Forest) -> dict[str, Tensor]:
    scores: Scores = model(images)
    if not bool(scores.nodes.isfinite().all()):
        raise ValueError("the model gave scores that are not finite: check its weights.")
    return predictions(scores, forest, "direct")


def _names(forest: Forest, cuts: Sequence[Cut], decided: Mapping[str, Tensor], i: int) -> dict[str, str]:
    return {cut.label: forest.names[cut.nodes[int(decided[cut.label][i])]] for cut in cuts}


def _show(records: Sequence[Mapping[str, Any]], cuts: Sequence[Cut], options: Options) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", caption_justify="left")
    for name in ("image", "before", "after", "kept in 8 bits"):
        table.add_column(name, overflow="fold")
    for record in records[:_SHOWN]:
        table.add_row(record["image"], *_described(record, cuts), _verdict(record))
    console = Console()
    console.print(table)
    if len(records) > _SHOWN:
        console.print(f"... and {len(records) - _SHOWN} more in attack.json", style="dim", highlight=False)
    kept = sum(record["kept"] for record in records)
    wish = f"are taken for {options.towards!r}" if options.towards else "are decided wrongly"
    where = "one level or more" if len(cuts) > 1 else cuts[0].label
    console.print(
        f"{kept} of {len(records)} saved images {wish} at {where}; {options.output / 'attack.json'}",
        highlight=False,
        soft_wrap=True,
    )


def _described(record: Mapping[str, Any], cuts: Sequence[Cut]) -> tuple[str, str]:
    """Before and after: the names at one level, or how many of all levels changed."""
    if len(cuts) == 1:
        return record["before"][cuts[0].label], record["after"][cuts[0].label]
    changed = sum(record["before"][cut.label] != record["after"][cut.label] for cut in cuts)
    return record["before"]["leaf"], f"{record['after']['leaf']}, {changed} of {len(cuts)} levels changed"


def _verdict(record: Mapping[str, Any]) -> Text:
    if not record["reached"]:
        return Text("not broken", "dim")
    if not record["kept"]:
        return Text("no, lost in 8 bits", "yellow")
    return Text("yes, as before" if record["reached_before"] else "yes", "dim" if record["reached_before"] else "green")
