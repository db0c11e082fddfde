"""Evaluation protocols of published methods as presets, and the figures that were published under each.

Published figures stand beside measured ones in a table of their own: each protocol says what differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Literal

from robustree.attacks import APGD, PGD
from robustree.auditing.plan import LevelAttack
from robustree.data import Record

ProtocolName = Literal["hrzs", "tecoa", "fare", "tga"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """Figures (% right) of one method under one attack by data set, and their "average" over `average_of`, where they
    are published."""

    method: str
    model: str
    attack: str
    source: str
    average_of: str
    figures: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a method's figures were measured, as far as it is known.

    `data_sets`: of the catalogue. `images`: of each set, all for None; `more`: where it is another number. `eps`: in
    units of [0, 1]. `ensembles`: several templates a class, or the data set's one prompt. `native`: small images are
    attacked at their own size. `differs`: what this library does otherwise, or what is not published."""

    name: ProtocolName
    about: str
    data_sets: tuple[str, ...]
    images: int | None
    more: tuple[tuple[str, int], ...] = ()
    eps: tuple[float, ...]
    attacks: tuple[LevelAttack, ...]
    ensembles: bool
    native: bool
    seed: int = 0
    differs: str

    def image_count(self, record: Record) -> int | None:
        """How many images of a set are attacked; None for all."""
        return dict(self.more).get(record.name, self.images)

    def templates(self, record: Record) -> tuple[str, ...]:
        """The prompts of a class."""
        return record.ensemble if self.ensembles else (record.prompt,)

    def attacks_on(self, record: Record) -> tuple[LevelAttack, ...]:
        """The attacks; two classes have no ratio of logits' differences, and are attacked by the others."""
        return tuple(part for part in self.attacks if part.loss != "ratio" or len(record.classes) > 2)

    @property
    def published(self) -> tuple[Published, ...]:
        """What was published under this protocol."""
        return published_rows(self.name)


_SMALL = ("cifar10", "cifar100", "stl10")
_BOTH = ("caltech101", "imagenet", "pets", "flowers102", "aircraft", "cars", "dtd", "eurosat", "pcam")
_FIFTEEN = (*_SMALL, *_BOTH, "caltech256", "food101", "sun397")


def _steps(count: int) -> tuple[LevelAttack, ...]:
    """PGD on the cross-entropy with steps as long as eps, as the TeCoA family runs it."""
    return (LevelAttack(PGD(steps=count, step_size=1.0), "cross_entropy"),)


_WHOLE_SETS = (
    "Caltech-101, SUN397 and EuroSAT are audited there as a whole, here as test splits. Their attack takes gradients "
    "in half precision and keeps the last iterate, which is weaker; here both are in single precision, and the best "
    "iterate counts."
)
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol(
                name="hrzs",
                about="15 sets, all images, PGD-20, eps 1/255, one prompt",
                data_sets=_FIFTEEN,
                images=None,
                eps=(1 / 255,),
                attacks=_steps(20),
                ensembles=False,
                native=True,
                differs="The paper's step size, precision, prompts, and size of small images are not published here: "
                f"TeCoA's are assumed. {_WHOLE_SETS}",
            ),
            Protocol(
                name="tecoa",
                about="15 sets, all images, PGD-100, eps 1/255, one prompt",
                data_sets=_FIFTEEN,
                images=None,
                eps=(1 / 255,),
                attacks=_steps(100),
                ensembles=False,
                native=True,
                differs="The steps behind the published figures are not stated beside them, and the average is over a "
                f"slightly other list of sets. {_WHOLE_SETS}",
            ),
            Protocol(
                name="fare",
                about="1,000 images a set (5,000 of ImageNet), APGD-CE and APGD-T, eps 2/255 and 4/255, ensembles",
                data_sets=(*_SMALL, *_BOTH, "imagenet_r", "imagenet_sketch"),
                images=1000,
                more=(("imagenet", 5000),),
                eps=(2 / 255, 4 / 255),
                attacks=(LevelAttack(APGD(restarts=5), "cross_entropy"), LevelAttack(APGD(targets=9), "ratio")),
                ensembles=True,
                native=True,
                differs="Clean figures are on all images there, and robust ones on a subset by a shuffle buffer; here "
                "the subset is even over the classes.",
            ),
            Protocol(
                name="tga",
                about="16 sets, all images, PGD-100 on images of the model's size, eps 1/255, one prompt",
                data_sets=("tiny_imagenet", *_FIFTEEN),
                images=None,
                eps=(1 / 255,),
                attacks=_steps(100),
                ensembles=False,
                native=False,
                differs="Models there were trained on Tiny-ImageNet: never compare with those trained on ImageNet. "
                f"{_WHOLE_SETS}",
            ),
        )
    }
)


def published_rows(section: str) -> tuple[Published, ...]:
    """The rows of one section of `published.json`: a protocol's name, or a table of a paper."""
    return tuple(Published(**row) for row in _sections()[section])


@cache
def _sections() -> dict[str, list[dict]]:
    return json.loads(files("robustree.auditing").joinpath("published.json").read_text(encoding="utf-8"))
