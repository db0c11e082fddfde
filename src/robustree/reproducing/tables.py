"""The tables of the paper (arXiv 2604.18867) as values: their rows, what is measured on each, and what was published.

A row says which method with which options; a `Scale` says on which model, images and budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from robustree.auditing.protocols import Published, published_rows
from robustree.geometry import Poincare, Space, Sphere
from robustree.methods import AGFT, FARE, PMGAFT, Hierarchical, Method, TeCoA

Backbone = Literal["ViT-B/32", "ViT-L/14", "RN50"]
Attack = Literal["PGD-20", "AutoAttack", "CW"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model of a table: as it was pretrained (`method` None), or hardened in `space` over the first `trees` label
    trees. `name` is that of its directory and in audits."""

    name: str
    method: Method | None = None
    space: Space = field(default_factory=Sphere)
    trees: int = 1
    backbone: Backbone = "ViT-B/32"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table.

    `candidate`: None for what can only be quoted. `published`: (section, method) of `published.json`, none where no
    figure is known. `note`: what else is known about the row."""

    label: str
    candidate: Candidate | None
    published: tuple[tuple[str, str], ...] = ()
    note: str = ""

    def figures(self, attack: str) -> tuple[Published, ...]:
        """What was published about the row under an attack ("clean", "PGD-20 at 1/255")."""
        return tuple(
            found
            for section, method in self.published
            for found in published_rows(section)
            if found.method == method and found.attack == attack
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An attack on every audited image; its eps is `factor` times that of training."""

    attack: Attack
    factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of the paper. `unknown`: what is not published about it, and what is taken instead. `by_data_set`: the
    section of `published.json` with figures of single data sets."""

    name: str
    about: str
    rows: tuple[Row, ...]
    evaluations: tuple[Evaluation, ...]
    unknown: tuple[str, ...] = ()
    by_data_set: str | None = None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every model that is measured, once."""
        return tuple(dict.fromkeys(row.candidate for row in self.rows if row.candidate))


def hrft(name: str, *, trees: int = 1, backbone: Backbone = "ViT-B/32", **options: Any) -> Candidate:
    """The paper's method, with averaged parents as its summaries describe it; `options` of `Hierarchical` change a
    part."""
    settings: dict[str, Any] = {"parents": "recursive"} | options
    method = Hierarchical(**settings)
    return Candidate(name=name, method=method, space=Poincare(curvature=1.0), trees=trees, backbone=backbone)


def _rows_of(backbone: Backbone) -> tuple[Row, Row]:
    ending = backbone.lower().replace("/", "-")
    flat = Candidate(name=f"tecoa-{ending}", method=TeCoA(), backbone=backbone)
    return (
        Row(label=f"{backbone}: TeCoA", candidate=flat),
        Row(label=f"{backbone}: HRFT", candidate=hrft(f"hrft-{ending}", backbone=backbone)),
    )


CLIP = Candidate(name="pretrained")
TECOA = Candidate(name="tecoa", method=TeCoA())
ONE_TREE, FIVE_TREES = hrft("hrft"), hrft("hrft-5-trees", trees=5)
_CLIP = Row(label="CLIP", candidate=CLIP, published=(("hrzs", "CLIP"),))
_TECOA = Row(label="TeCoA", candidate=TECOA, published=(("hrzs", "TeCoA"), ("hrzs-components", "TeCoA")))
_PMG = Row(label="PMG-AFT", candidate=Candidate(name="pmg-aft", method=PMGAFT()), published=(("hrzs", "PMG-AFT"),))
_FARE = Row(label="FARE", candidate=Candidate(name="fare", method=FARE()), published=(("hrzs", "FARE"),))
_AGFT = Row(label="AGFT", candidate=Candidate(name="agft", method=AGFT()), published=(("agft", "AGFT"),))
_HRFT = (("hrzs", "HR-ZS, one tree"), ("hrzs-components", "HR-ZS, one tree"))
_ONE = Row(label="HRFT, one tree", candidate=ONE_TREE, published=_HRFT)
_FIVE = Row(label="HRFT, five trees", candidate=FIVE_TREES, published=(("hrzs", "HR-ZS, five trees"),))
_AOS = Row(label="AoS", candidate=None, published=(("hrzs", "AoS"),), note="no code and too little text: quoted only")
_PGD, _AUTO = Evaluation(attack="PGD-20"), Evaluation(attack="AutoAttack")
_VERSION = 'which attacks "AutoAttack" means is not published'
_ALSO = "the paper's text is not at hand: which methods stand in this table is not known"
_BETWEEN = ((2, "two"), (3, "three"), (4, "four"))
_OTHERS: tuple[Backbone, ...] = ("ViT-L/14", "RN50")

_TABLES = (
    PaperTable(
        name="main",
        about="methods on average over the data sets",
        rows=(_CLIP, _TECOA, _PMG, _FARE, _AOS, _AGFT, _ONE, _FIVE),
        evaluations=(_PGD,),
        unknown=(
            "AGFT is not in the paper's table: its figures are those of its own paper, where CLIP has 66.20 and 6.24, "
            "TeCoA 56.93 and 38.51",
            "how the paper trained its baselines is not published: every row has one budget here",
        ),
        by_data_set="hrzs-sets",
    ),
    PaperTable(
        name="components",
        about="what each part of the method adds",
        rows=(
            _TECOA,
            Row(
                label="HITA",
                candidate=hrft("hita", vic=0.0, gap_label=0.0, gap_image=0.0),
                published=(("hrzs-components", "HITA"),),
            ),
            Row(
                label="HITA + vic",
                candidate=hrft("hita-vic", gap_label=0.0, gap_image=0.0),
                published=(("hrzs-components", "HITA and vic"),),
            ),
            Row(
                label="HITA + gap",
                candidate=hrft("hita-gap", vic=0.0),
                published=(("hrzs-components", "HITA and gap"),),
            ),
            Row(label="HITA + vic + gap", candidate=ONE_TREE, published=_HRFT),
        ),
        evaluations=(_PGD, _AUTO),
        unknown=(
            "whether the rows without all parts have hierarchical negatives and the universal perturbation is not "
            "published: all have both here",
            _VERSION,
        ),
    ),
    PaperTable(
        name="perturbation",
        about="what the training attack aims at",
        rows=(
            Row(
                label="leaf",
                candidate=hrft("hrft-leaf", perturbation="leaf"),
                published=(("hrzs-perturbation", "leaf perturbation"),),
                note="70.1 minutes an epoch in the paper",
            ),
            Row(
                label="each level",
                candidate=hrft("hrft-per-level", perturbation="per_level"),
                published=(("hrzs-perturbation", "perturbation of each level"),),
                note="154.2 minutes an epoch in the paper",
            ),
            Row(
                label="universal",
                candidate=ONE_TREE,
                published=_HRFT,
                note="73.2 minutes an epoch in the paper",
            ),
        ),
        evaluations=(_PGD, _AUTO),
        unknown=("the hardware of the minutes is not published", _VERSION),
    ),
    PaperTable(
        name="negatives",
        about="hierarchical negatives (HNSA)",
        rows=(
            Row(label="own level only", candidate=hrft("hrft-negatives-none", negatives="none")),
            Row(
                label="and the level below",
                candidate=hrft("hrft-negatives-lower", negatives="lower"),
                published=(("hrzs-negatives", "negatives of one side"),),
            ),
            Row(
                label="and the level above",
                candidate=hrft("hrft-negatives-upper", negatives="upper"),
                published=(("hrzs-negatives", "negatives of one side"),),
            ),
            Row(label="both", candidate=ONE_TREE, published=_HRFT),
        ),
        evaluations=(_PGD,),
        unknown=("which of the two published figures of one side is the level below is not certain",),
    ),
    PaperTable(
        name="trees",
        about="the number of label trees",
        rows=(
            _ONE,
            *(Row(label=f"HRFT, {word} trees", candidate=hrft(f"hrft-{n}-trees", trees=n)) for n, word in _BETWEEN),
            _FIVE,
        ),
        evaluations=(_PGD,),
        unknown=("the paper's five trees and their order are not published: the shipped ones are taken",),
    ),
    PaperTable(
        name="eps",
        about="larger perturbations in the audit",
        rows=(_CLIP, _TECOA, _PMG, _FARE, _ONE),
        evaluations=tuple(Evaluation(attack="PGD-20", factor=factor) for factor in (1.0, 2.0, 4.0)),
        unknown=(
            _ALSO,
            "figures above 1/255 are not published here, nor is whether models were hardened at that eps: they are "
            "hardened at the smallest",
        ),
    ),
    PaperTable(
        name="attacks",
        about="other attacks than PGD",
        rows=(_CLIP, _TECOA, _PMG, _FARE, _ONE),
        evaluations=(_PGD, Evaluation(attack="CW"), _AUTO),
        unknown=(_ALSO, "figures under CW are not published here", _VERSION),
    ),
    PaperTable(
        name="backbones",
        about="other encoders of images",
        rows=(
            replace(_TECOA, label="ViT-B/32: TeCoA"),
            replace(_ONE, label="ViT-B/32: HRFT"),
            *(row for backbone in _OTHERS for row in _rows_of(backbone)),
        ),
        evaluations=(_PGD,),
        unknown=(_ALSO, "figures of ViT-L and RN50 are not published here, nor is the patch size of the ViT-L"),
    ),
)
TABLES: Mapping[str, PaperTable] = MappingProxyType({table.name: table for table in _TABLES})
"""The tables by the name that `robustree reproduce` takes."""
