"""What one visitor is doing: the chosen image, and what becomes of it. Nothing here is shared between visitors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustree.checkpoint import device_of
from robustree.demo.attacking import Look, Wish, watch
from robustree.demo.bench import Bench, Sample
from robustree.demo.decisions import Decisions, decide, read
from robustree.demo.disk_chart import Disk, build_disk, draw_disk
from robustree.demo.views import draw_cards
from robustree.geometry import Poincare


@dataclass(frozen=True, kw_only=True)
class Visit:
    """The image of a visitor and what each model of the bench says of it before any attack."""

    sample: Sample
    clean: tuple[Decisions, ...]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Two parts of the page as HTML: the cards, and the disk ("" without a hyperbolic model)."""

    cards: str
    disk: str


def begin(bench: Bench, sample: Sample) -> Visit:
    """A visit to an image."""
    return Visit(sample=sample, clean=tuple(decide(subject, bench.forest, sample.pixels) for subject in bench.subjects))


def show(bench: Bench, visit: Visit, tree: str) -> Shown:
    """The image before any attack."""
    cards = draw_cards(bench, visit.sample, tree, visit.clean)
    found = _disk(bench, tree)
    if found is None:
        return Shown(cards=cards, disk="")
    number, disk = found
    return Shown(cards=cards, disk=draw_disk(disk, [_point(bench, number, visit)], visit.clean[number], None))


def attack(bench: Bench, visit: Visit, tree: str, wish: Wish) -> Iterator[Shown]:
    """The image after 0, 1, ... steps of an attack, each model attacked on its own."""
    found, way = _disk(bench, tree), []
    if found is not None:
        way.append(_point(bench, found[0], visit))
    watched = [
        watch(subject, visit.sample, clean, wish) for subject, clean in zip(bench.subjects, visit.clean, strict=True)
    ]
    for looks in zip(*watched, strict=True):
        cards = draw_cards(bench, visit.sample, tree, visit.clean, wish=wish, looks=looks)
        yield Shown(cards=cards, disk="" if found is None else _moved(bench, visit, found, way, looks))


def _moved(bench: Bench, visit: Visit, found: tuple[int, Disk], way: list[Tensor], looks: Sequence[Look]) -> str:
    number, disk = found
    look = looks[number]
    if look.found == look.step:
        way.append(look.scores.points[0])
    return draw_disk(disk, way, visit.clean[number], read(look.scores, bench.forest))


def _disk(bench: Bench, tree: str) -> tuple[int, Disk] | None:
    """The first hyperbolic model and its disk."""
    for number, subject in enumerate(bench.subjects):
        if isinstance(subject.model.head.space, Poincare):
            return number, build_disk(subject, bench.forest, tree)
    return None


def _point(bench: Bench, number: int, visit: Visit) -> Tensor:
    """Where a model of the bench sees the image before any attack (D,)."""
    model = bench.subjects[number].model
    with torch.no_grad():
        return model.image_points(visit.sample.pixels[None].to(device_of(model)))[0]
