"""What a table still needs: which models have to be hardened, which cells measured, what that takes and what lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from robustree.checkpoint import MARKER
from robustree.data import CATALOG
from robustree.reproducing.costs import Cost, Speed, audit_cost, given_speed, hardening_cost, measure_speed, total
from robustree.reproducing.counting import Footprint, clip_config, footprint
from robustree.reproducing.place import Machine, Place
from robustree.reproducing.results import protocol, read_result
from robustree.reproducing.tables import Backbone, Candidate, Evaluation, PaperTable
from robustree.training.cost import rounded


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One candidate on one data set under one attack: its figures, or what lacks for them."""

    evaluation: Evaluation
    data_set: str
    figures: Mapping[str, Any] | None
    lacks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything about one candidate. `lacks`: why it cannot be loaded or hardened here."""

    candidate: Candidate
    hardened: bool
    cells: tuple[Cell, ...]
    lacks: tuple[str, ...]

    @property
    def missing(self) -> tuple[Cell, ...]:
        """The cells without figures."""
        return tuple(cell for cell in self.cells if cell.figures is None)

    @property
    def state(self) -> str:
        """ "measured", or how far it is and what lacks, in a few words."""
        if not self.missing:
            return "measured"
        lacks = [lack.partition(":")[0] for lack in self.lacks]
        sets = {cell.data_set for cell in self.missing if cell.lacks}
        if sets:
            lacks.append(f"{len(sets)} of {len({cell.data_set for cell in self.cells})} data sets")
        done = len(self.cells) - len(self.missing)
        begun = [f"{done} of {len(self.cells)} measured"] if done or not lacks else []
        return "; ".join([*begun, *([f"lacks {', '.join(lacks)}"] if lacks else [])])

    @property
    def ready(self) -> tuple[Cell, ...]:
        """The missing cells whose model and images are here."""
        return tuple(cell for cell in self.missing if not cell.lacks and not self.lacks)


def jobs_of(table: PaperTable, place: Place) -> tuple[Job, ...]:
    """The candidates of a table, with what is finished.

    Raises:
        ValueError: a result is damaged, or was measured otherwise.
    """
    return tuple(_job(table, candidate, place) for candidate in table.candidates)


def _job(table: PaperTable, candidate: Candidate, place: Place) -> Job:
    cells = []
    for evaluation in table.evaluations:
        for name in place.scale.data_sets:
            wanted = protocol(place.scale, candidate, evaluation, CATALOG[name])
            found = read_result(place.result(candidate, evaluation, name), wanted)
            lacks = () if found else place.lacks_of_audit(name)
            cells.append(Cell(evaluation=evaluation, data_set=name, figures=found, lacks=lacks))
    hardened = candidate.method is None or (place.checkpoint(candidate) / MARKER).is_file()
    return Job(
        candidate=candidate,
        hardened=hardened,
        cells=tuple(cells),
        lacks=place.lacks_of_hardening(candidate) if any(cell.figures is None for cell in cells) else (),
    )


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a job would take: hardening (zero where it is done), and the audits of some cells."""

    hardening: Cost
    audits: Cost

    @property
    def whole(self) -> Cost:
        return total((self.hardening, self.audits))


@dataclass(frozen=True, kw_only=True)
class Prices:
    """How fast this machine is, and what an image takes in each backbone whose architecture is known."""

    speed: Speed
    footprints: Mapping[Backbone, Footprint]

    @property
    def about(self) -> str:
        """Where the hours come from."""
        speed = self.speed
        return (
            f"one step of {speed.images} images ({speed.what}) takes {rounded(speed.seconds)} s, "
            f"{rounded(speed.flops / 1e9)} GFLOP/s; the rest is arithmetic"
        )

    def of(self, job: Job, place: Place, cells: Sequence[Cell]) -> Price | None:
        """The price of a job with these cells; None where the architecture is not known before the model is here."""
        counted = self.footprints.get(job.candidate.backbone)
        if counted is None:
            return None
        recipe = place.scale.recipe(job.candidate)
        hardening = total(())
        if recipe is not None and not job.hardened:
            hardening = hardening_cost(recipe, place.scale.forest(job.candidate), counted, self.speed)
        audits = total(
            audit_cost(place.scale, cell.evaluation, CATALOG[cell.data_set], counted, self.speed) for cell in cells
        )
        return Price(hardening=hardening, audits=audits)


def prices(
    jobs: Sequence[Job], place: Place, device: torch.device, *, step_seconds: float | None = None
) -> Prices | None:
    """Measure one step of the first job that trains, or take the seconds that another machine needed for it.

    None where no architecture is known.
    """
    first = next((job.candidate for job in jobs if job.candidate.method is not None), None)
    counted: dict[Backbone, Footprint] = {}
    configs: dict[Backbone, dict] = {}
    backbones: list[Backbone] = [job.candidate.backbone for job in jobs]
    for backbone in dict.fromkeys(backbones):
        where = place.scale.models.get(backbone)
        config = clip_config(backbone, where) if where else None
        if config is not None:
            configs[backbone], counted[backbone] = config, footprint(config)
    recipe = place.scale.recipe(first) if first else None
    config = configs.get(first.backbone) if first else None
    if first is None or recipe is None or config is None:
        return None
    own, forest = counted[first.backbone], place.scale.forest(first)
    what = f"{first.name}, {place.scale.models[first.backbone]}"
    if step_seconds is not None:
        speed = given_speed(step_seconds, own, recipe, forest, what=f"{what}, as --step-seconds says")
    else:
        speed = measure_speed(config, own, recipe, forest, device, what=f"{what}, measured on the {device.type}")
    return Prices(speed=speed, footprints=counted)


def needs_of(jobs: Sequence[Job], place: Place, priced: Prices | None) -> list[dict[str, Any]]:
    """What each job without all its figures still takes, as plain data; hours are those of one device, at most."""
    found = []
    for job in jobs:
        price = priced.of(job, place, job.missing) if priced else None
        parts: dict[str, Any] = {"model": job.candidate.name, "done": len(job.cells) - len(job.missing)}
        parts["cells"] = len(job.cells)
        if price is not None:
            parts |= {"hours_of_hardening": price.hardening.hours, "hours_of_audits": price.audits.hours}
            parts |= {"flops": price.whole.flops, "memory": price.whole.memory, "disk": price.whole.disk}
        found.append(parts)
    return found


def lacks_of(jobs: Sequence[Job]) -> list[str]:
    """Each model and set of images that is not here, once, with what gets it."""
    lacks = [lack for job in jobs for lack in job.lacks]
    lacks += [lack for job in jobs for cell in job.missing for lack in cell.lacks]
    return list(dict.fromkeys(lacks))


def machine_lacks(job: Job, price: Price | None, place: Place, machine: Machine) -> tuple[str, ...]:
    """What the machine has too little of for a job."""
    return machine.lacks(price.whole, place.scale.recipe(job.candidate)) if price else ()
