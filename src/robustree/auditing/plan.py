"""What an audit does to every image: which attacks, at which levels, read in which way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

from torch import Tensor

from robustree.attacks import PGD, Attack, AutoAttack, Search, Threat, Transfer
from robustree.checkpoint import weights_digest
from robustree.objectives import READOUTS, Loss, Margin, Objective, Readout, every_level
from robustree.taxonomy import Forest
from robustree.tree_model import TreeModel


@dataclass(frozen=True)
class LevelAttack:
    """An attack on each level's decision, and the loss it maximises; None for cascades, which bring their own."""

    attack: Attack
    loss: Loss | None = "margin"

    def __post_init__(self) -> None:
        if (self.loss is None) != isinstance(self.attack, AutoAttack):
            raise ValueError(
                f"the attack {self.attack.name} has the loss {self.loss}: cascades have none, all others need one."
            )
        if isinstance(self.attack, Search) and not self.attack.best:
            raise ValueError(f"{self.attack.name} returns its last iterate; audits need the best one: set best=True.")

    @property
    def name(self) -> str:
        return self.attack.name if self.loss is None else f"{self.attack.name}-{self.loss}"

    @property
    def passes(self) -> Passes:
        """What an image that withstands takes, its judgement after the attack included; one that leaves early takes
        less."""
        whole = self.attack.attack if isinstance(self.attack, Transfer) else self.attack
        stages = [stage.attack for stage in whole.stages] if isinstance(whole, AutoAttack) else [whole]
        searches = [stage for stage in stages if isinstance(stage, Search)]
        looks = [search.evaluations * search.restarts * max(1, search.targets) for search in searches]
        gradients = sum(look for look, search in zip(looks, searches, strict=True) if search.gradients)
        return Passes(1 + sum(looks), gradients)


class Passes(NamedTuple):
    """How often an image goes forward through the encoder, and how many gradients with respect to it, or to the
    weights, come back."""

    forwards: float
    image_gradients: float
    weight_gradients: float = 0


class Run(NamedTuple):
    """One pass over the images: the attack's name in the rows, what it aims at ("" for the clean pass), and the attack
    with its loss."""

    name: str
    attacked: str
    attack: LevelAttack | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an audit does to every image.

    Each of `attacks` (none: clean images only) aims at every level's decision in turn, for each of `readouts`.
    `all_levels` is the attack on the mean cross-entropy of all levels, None for no such run. With `stop`, an image
    leaves an attack once the attacked decision has changed: several times faster, the same robust accuracy, but
    transfer to other levels is then that of a barely sufficient attack (cascades always stop, and attacks around an
    attack are left as they are). With `share`, a cascade goes through all levels of an image at once, and an image that
    was found at one level counts at every level that it breaks (`auditing.sharing`): never more robust decisions, but
    where such an image lands is no longer what the attack on its level alone does. `batch_size` is how many images the
    model sees at once; rows depend on it only where the model's rounding does.

    Raises:
        ValueError: two attacks of one name, an unknown readout, an attack that returns its last iterate, or a
            `batch_size` below 1.
    """

    threat: Threat
    attacks: tuple[LevelAttack, ...] = (LevelAttack(PGD()),)
    readouts: tuple[Readout, ...] = ("direct",)
    all_levels: Search | None = PGD()  # noqa: RUF009 - a frozen record
    stop: bool = False
    share: bool = False
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        names = [attack.name for attack in self.attacks]
        if len(set(names)) < len(names):
            raise ValueError(f"the attacks are {', '.join(names)}; name none twice.")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it counts from 1: give a positive number.")
        for readout in self.readouts:
            if readout not in READOUTS:
                raise ValueError(f"readout is {readout!r}; {', '.join(READOUTS)} are the readouts: choose among them.")
        if self.all_levels and not self.all_levels.best:
            raise ValueError(f"{self.all_levels.name} returns its last iterate; audits need the best: set best=True.")
        if self.all_levels:
            everything = LevelAttack(self.all_levels, "cross_entropy")
            if any(attack.name == everything.name and attack != everything for attack in self.attacks):
                raise ValueError(
                    f"attacks and all_levels have {everything.name} with different settings, and rows go by the name: "
                    "give both the same."
                )

    def runs(self, forest: Forest) -> Iterator[Run]:
        """Every pass over the images; the clean one comes first."""
        yield Run("clean", "", None)
        for attack in self.attacks:
            for readout in self.readouts:
                for cut in forest.cuts():
                    if readout == "direct" or cut.level > 0:
                        yield Run(attack.name, target_label(cut.label, readout), attack)
        if self.all_levels:
            everything = LevelAttack(self.all_levels, "cross_entropy")
            yield Run(everything.name, "all", everything)

    def together(self, forest: Forest) -> Iterator[tuple[Run, ...]]:
        """The runs again, those in one tuple that images go through at once: all levels of a cascade that shares."""

        def shared(run: Run) -> object:
            return run.attack if self.shares(run) else run

        for _, runs in groupby(self.runs(forest), key=shared):
            yield tuple(runs)

    def shares(self, run: Run) -> bool:
        """Whether images of other levels count in a run; not where the model is random."""
        attack = run.attack.attack if run.attack else None
        return self.share and isinstance(attack, AutoAttack) and attack.version != "rand"

    def prepared(self, run: Run) -> Attack:
        """The attack of a run, which stops at success if the plan says so."""
        attack = run.attack.attack  # type: ignore[union-attr]
        if self.stop and run.attacked != "all" and isinstance(attack, Search):
            return replace(attack, stop=True)
        return attack


def target_label(cut_label: str, readout: str) -> str:
    """ "unicode/1" or "unicode/1:via_leaf": the level under attack and, unless direct, the readout."""
    return cut_label if readout == "direct" else f"{cut_label}:{readout}"


def level_objective(forest: Forest, leaves: Tensor, attacked: str, loss: Loss | None = "margin") -> Objective:
    """What an attack on a level and readout ("unicode/1", "leaf", "unicode/1:summed") or on "all" maximises.

    Raises:
        ValueError: an unknown level or readout.
    """
    if attacked == "all":
        return every_level(forest.cuts(), leaves)
    label, _, readout = attacked.partition(":")
    decision = Margin(forest.find_cut(label), leaves, readout=readout or "direct")  # type: ignore[arg-type]
    return decision if loss is None else decision.under(loss)


def stage_names(attack: AutoAttack) -> list[str | None]:
    """What rows say of the stages of `Broken`: None for 0, wrong before any attack, and for -1, robust."""
    return [None, *(stage.name for stage in attack.stages), None]


def described(part: object) -> Any:
    """A frozen record as JSON: its class and its fields, nested; a model is a digest of its weights."""
    if isinstance(part, tuple):
        return [described(item) for item in part]
    if isinstance(part, TreeModel):
        return weights_digest(part)
    if not is_dataclass(part):
        return part if isinstance(part, str | int | float | None) else str(part)
    values = {field.name: described(getattr(part, field.name)) for field in fields(part)}
    return {"kind": type(part).__name__} | values if not isinstance(part, LevelAttack) else values
