"""Exhibits for the gallery: images that a model recognises at every level until a superclass is attacked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from robustree.attacks import PGD
from robustree.attacks.rounding import round_to_bytes
from robustree.auditing.audit import Subject, attack_level, image_noise, predictions
from robustree.auditing.plan import LevelAttack, Plan
from robustree.auditing.rows import read_rows
from robustree.auditing.table import Mask, Table, read_table
from robustree.checkpoint import device_of
from robustree.data import AuditImages
from robustree.data.decoding import png_bytes
from robustree.taxonomy import Forest
from robustree.tree_model import Scores
from robustree.writing import write_whole

GALLERY, FOLDER = "gallery.json", "gallery"
KINDS = ("clean", "perturbation", "adversarial")
_PICTURE = re.compile(r"\d+-(clean|perturbation|adversarial)(-[0-9a-f]{8})?\.png")
_TRIES = 4  # attacks that are run for one exhibit, at most: rounding to 8 bits may undo some

Choice = tuple[Subject, int, str]  # the attacked model, the image's position, the attacked level


def make_exhibits(
    subjects: Sequence[Subject], images: AuditImages, forest: Forest, plan: Plan, directory: Path, count: int
) -> int:
    """Write up to `count` exhibits as PNGs in `directory/gallery` and `directory/gallery.json`; returns how many.

    The rows in `directory` say which images lose a superclass under attack. Images that the model, then most models,
    get right at every level come first, models take turns, and `plan.seed` decides between equals. That attack is run
    again, rounded to the 8 bits of a PNG, and read by every model. "kept_after_rounding" is false where rounding undid
    it, which happens only if no attack survives. Pictures carry a digest in their names: until the new `gallery.json`
    is in place, the old one and its pictures stand.
    """
    taken: set[int] = set()
    entries: list[dict[str, Any]] = []
    known = {_key(subject) for subject in subjects}
    table = read_table((row for row in read_rows(directory) if (row["model"], row["head"]) in known), forest)
    queues = {id(subject): _candidates(subject, subjects, images, table, plan.seed) for subject in subjects}
    tries, waiting = _TRIES * count, list(subjects)
    spare: tuple[dict[str, Any], dict[str, bytes]] | None = None
    while waiting and len(entries) < count and tries:
        subject = waiting.pop(0)
        choice = next((choice for choice in queues[id(subject)] if choice[1] not in taken), None)
        if choice is None:
            continue
        waiting.append(subject)
        taken.add(choice[1])
        tries -= 1
        entry, pictures = _exhibit(choice, subjects, images, forest, plan, f"{len(entries) + 1:02d}")
        if entry["kept_after_rounding"]:
            _write(directory, pictures)
            entries.append(entry)
        else:
            spare = spare or (entry, pictures)
    if not entries and spare:
        _write(directory, spare[1])
        entries.append(spare[0])
    write_whole(directory / GALLERY, json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    kept = {entry[f"{kind}_png"] for entry in entries for kind in KINDS}
    for path in sorted((directory / FOLDER).glob("*.png")):
        if _PICTURE.fullmatch(path.name) and path.name not in kept:
            path.unlink()
    return len(entries)


def _candidates(
    subject: Subject, subjects: Sequence[Subject], images: AuditImages, table: Table, seed: int
) -> Iterator[Choice]:
    """The images that show how a superclass of `subject` breaks, best first, each with a broken coarsest level."""
    own = table.subject(subject.name, subject.head)
    clean = table.correct(own.clean, "direct")
    right = [table.correct(table.subject(*_key(other)).clean, "direct").all(axis=1) for other in subjects]
    many, whole = np.sum(right, axis=0), np.logical_and.reduce(clean, axis=1)
    broken: dict[str, Mask] = {}
    for label in _superclasses(table.forest):
        column = table.cuts.index(table.forest.find_cut(label))
        runs = [table.correct(run, "direct")[:, column] for run in own.runs if run.attacked == label]
        if runs:
            broken[label] = clean[:, column] & ~np.stack(runs).all(axis=0)

    def rank(position: int) -> tuple[bool, int, int]:
        row = table.row_of[images.ids[position]]
        return not whole[row], -int(many[row]), crc32(f"{seed}/{images.ids[position]}".encode())

    for position in sorted(range(len(images.ids)), key=rank):
        image = images.ids[position]
        tops = [label for label, gone in broken.items() if gone[table.row_of[image]]]
        if tops:
            yield subject, position, tops[crc32(f"{seed}/{image}".encode()) % len(tops)]


def _key(subject: Subject) -> tuple[str, str]:
    return subject.name, subject.head


def _superclasses(forest: Forest) -> list[str]:
    """The coarsest level of every tree."""
    return [forest.cut(tree.name, len(tree.levels)).label for tree in forest.trees if tree.levels]


def _exhibit(
    choice: Choice, subjects: Sequence[Subject], images: AuditImages, forest: Forest, plan: Plan, number: str
) -> tuple[dict[str, Any], dict[str, bytes]]:
    subject, position, label = choice
    device = device_of(subject.model)
    clean = images.pixels[position : position + 1].to(device)
    leaf = images.leaves[position : position + 1].to(device)
    # The strongest image, not the first sufficient one, survives rounding.
    full = Plan(threat=plan.threat, attacks=(LevelAttack(plan.all_levels or PGD()),), seed=plan.seed)
    run = next(run for run in full.runs(forest) if run.attacked == label)
    noise = image_noise([images.ids[position]], plan.seed, run, device)
    made, _ = attack_level(subject.model, clean, leaf, forest, full, run, noise)
    cut = forest.find_cut(label)

    @torch.no_grad()
    def works(candidates: Tensor) -> Tensor:
        return subject.model(candidates).at(cut).argmax(1) != cut.of_leaf[int(leaf)]

    rounded = round_to_bytes(made, clean, plan.threat, works=works)
    contents = [
        png_bytes(picture) for picture in (clean[0], magnified(rounded.images[0] - clean[0]), rounded.images[0])
    ]
    pictures = {
        f"{number}-{kind}-{sha256(content).hexdigest()[:8]}.png": content
        for kind, content in zip(KINDS, contents, strict=True)
    }
    names = [s.name for s in subjects]
    paths = {}
    for other in subjects:
        title = other.name if names.count(other.name) == 1 else f"{other.name} ({other.head})"
        with torch.no_grad():
            before, after = _paths(other.model(clean), forest), _paths(other.model(rounded.images), forest)
        paths[title] = {tree: {"clean": before[tree], "adversarial": after[tree]} for tree in before}
    entry = {
        "image": images.ids[position],
        "model": subject.name,
        "head": subject.head,
        "attacked": label,
        "eps": plan.threat.eps,
        "kept_after_rounding": bool(rounded.kept[0]),
        **dict(zip((f"{kind}_png" for kind in KINDS), pictures, strict=True)),
        "truth": {tree.name: [forest.names[n] for n in forest.path(tree.name, int(leaf))] for tree in forest.trees},
        "paths": paths,
    }
    return entry, pictures


def magnified(perturbation: Tensor) -> Tensor:
    """A perturbation (3, H, W) as a picture in [0, 1]: grey where nothing changes, its largest change at full scale."""
    return 0.5 + perturbation / (2 * perturbation.abs().max().clamp(min=1e-6))


def _paths(scores: Scores, forest: Forest) -> Mapping[str, list[str]]:
    """The decision of one image at every level of every tree, as names from the leaf to the top."""
    decided = {label: int(index) for label, index in predictions(scores, forest, "direct").items()}

    def name(tree: str, level: int) -> str:
        cut = forest.cut(tree, level)
        return forest.names[cut.nodes[decided[cut.label]]]

    return {tree.name: [name(tree.name, level) for level in range(len(tree.levels) + 1)] for tree in forest.trees}


def _write(directory: Path, pictures: Mapping[str, bytes]) -> None:
    for name, content in pictures.items():
        write_whole(directory / FOLDER / name, content)
