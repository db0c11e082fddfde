"""On what the rows of a table are made: the paper's model and data sets, or what is built into the package.

Figures of two scales are of different things; each scale says in a sentence what its own are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from robustree.attacks import CW, PGD, AutoAttack, Threat
from robustree.auditing.plan import LevelAttack, Plan
from robustree.auditing.protocols import PROTOCOLS
from robustree.data import CATALOG, Record
from robustree.methods import AGFT, TeCoA
from robustree.reproducing.tables import Attack, Backbone, Candidate, Evaluation
from robustree.taxonomy import EMOJI_TREES, Forest
from robustree.training import Recipe

ScaleName = Literal["paper", "embedded"]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A model, images and a budget.

    `models`: where each backbone is, a hub id or a name. `training`: the data set of hardening, of `training_images`,
    with its `trees` in the order in which their number grows. `base`: the recipe of every row but for method and space,
    and but for `changes` by the candidate's name. `data_sets`: those that are audited, `images` of each (None: all).
    `attacks`: the attack of each column. `levels`: the columns under which every level is attacked, not the leaf alone.
    `assumed`: what nobody has published, and what is taken instead."""

    name: ScaleName
    about: str
    models: Mapping[Backbone, str]
    training: str
    training_images: int
    trees: tuple[str, ...]
    base: Recipe
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data_sets: tuple[str, ...]
    images: int | None
    attacks: Mapping[Attack, LevelAttack]
    levels: tuple[Attack, ...] = ()
    assumed: tuple[str, ...] = ()

    def recipe(self, candidate: Candidate) -> Recipe | None:
        """How a candidate is hardened; None for a pretrained one."""
        if candidate.method is None:
            return None
        own = replace(self.base, method=candidate.method, space=candidate.space)
        return replace(own, **self.changes.get(candidate.name, {}))

    def forest(self, candidate: Candidate) -> Forest:
        """The classes and trees over which a candidate is hardened."""
        return CATALOG[self.training].forest(self.trees[: candidate.trees])

    def eps(self, evaluation: Evaluation) -> float:
        """The eps of an evaluation, in units of [0, 1]."""
        return evaluation.factor * self.base.threat.eps

    def title(self, evaluation: Evaluation) -> str:
        """ "PGD-20 at 1/255"."""
        return f"{evaluation.attack} at {255 * self.eps(evaluation):g}/255"

    def audited_forest(self, record: Record, evaluation: Evaluation) -> Forest:
        """The levels at which a data set is attacked: those of all its trees, or the leaf alone."""
        if evaluation.attack in self.levels:
            return record.forest()
        return Forest(record.classes, len(record.classes), ())

    def plan(self, evaluation: Evaluation) -> Plan:
        """What an evaluation does to every image."""
        return Plan(
            threat=replace(self.base.threat, eps=self.eps(evaluation)),
            attacks=(self.attacks[evaluation.attack],),
            all_levels=None,
            stop=True,
            seed=self.base.seed,
        )

    def image_count(self, record: Record) -> int:
        """How many images of a data set are audited."""
        return min(self.images or record.images, record.images)


_CW = LevelAttack(CW(search_steps=1), "margin")  # linf has one search; its cost is counted from here
_IMAGENET = 1_281_167
_EPOCH = _IMAGENET // 256  # steps
PAPER = Scale(
    name="paper",
    about="zero-shot accuracy of leaves on average over the data sets, after hardening on ImageNet",
    models=MappingProxyType(
        {
            "ViT-B/32": "openai/clip-vit-base-patch32",
            "ViT-L/14": "openai/clip-vit-large-patch14",
            "RN50": "open_clip:RN50/openai",
        }
    ),
    training="imagenet",
    training_images=_IMAGENET,
    trees=("wordnet", "kind", "place", "size", "motion"),
    base=Recipe(
        method=TeCoA(),
        threat=Threat(eps=1 / 255),
        attack=PGD(steps=3, step_size=1.0, best=False),
        steps=10 * _EPOCH,
        batch_size=256,
        lr=1e-5,
        weight_decay=1e-4,
        warmup=1000 / (10 * _EPOCH),
    ),
    data_sets=PROTOCOLS["hrzs"].data_sets,
    images=PROTOCOLS["hrzs"].images,
    attacks=MappingProxyType(
        {
            "PGD-20": PROTOCOLS["hrzs"].attacks[0],
            "AutoAttack": LevelAttack(AutoAttack(version="standard"), None),
            "CW": _CW,
        }
    ),
    assumed=(
        "published: ViT-B/32, ImageNet, 3 attack steps of 1/255 at eps 1/255, text eps 2e-4, level weights 1 - l/(L+1)",
        "not published: curvature (1), weights of vic and gap (0.1) and their bounds (1, 0.1), logit scale (CLIP's "
        "slope), optimiser (AdamW at 1e-5 with weight decay 1e-4, FARE's), batch and epochs (256, 10, TeCoA's), "
        "warm-up (1,000 steps, TeCoA's), precision (fp32)",
        "AutoAttack is its standard cascade of four attacks here",
        PROTOCOLS["hrzs"].differs,
    ),
)
EMBEDDED = Scale(
    name="embedded",
    about="the built-in model on the embedded drawings: a stand-in that runs without GPU and downloads; its figures "
    "say nothing about CLIP on photographs",
    models=MappingProxyType({"ViT-B/32": "nano"}),
    training="emoji",
    training_images=1_327,
    trees=("wordnet", *(tree for tree in EMOJI_TREES if tree != "wordnet")),
    base=Recipe(method=TeCoA(), threat=Threat(eps=4 / 255), steps=100, batch_size=64, lr=1e-3),
    changes=MappingProxyType({"fare": {"lr": 2e-3}, "agft": {"method": AGFT(sharpness=1.0, softening=1.0)}}),
    data_sets=("emoji",),
    images=131,
    attacks=MappingProxyType(
        {
            "PGD-20": LevelAttack(PGD(steps=20, step_size=0.25)),
            "AutoAttack": LevelAttack(AutoAttack(version="fast"), None),
            "CW": _CW,
        }
    ),
    levels=("PGD-20",),
    assumed=(
        "rates, steps and the weights of the method: benchmarks/hierarchical_sweep.json, on other drawings",
        "AutoAttack is its fast cascade here: APGD on the cross-entropy and aimed at 9 wrong classes",
    ),
)
SCALES: Mapping[ScaleName, Scale] = MappingProxyType({"paper": PAPER, "embedded": EMBEDDED})
