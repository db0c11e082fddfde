"""What is at hand for a reproduction: models, images, memory and disk; and where its results go."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from robustree.checkpoint import MARKER
from robustree.data import CATALOG
from robustree.data.splits import audited_names, of_split
from robustree.models import loading, open_clip_library
from robustree.reproducing.costs import IMAGE_BYTES, Cost
from robustree.reproducing.scales import Scale
from robustree.reproducing.tables import Candidate, Evaluation
from robustree.training import Recipe

_ENDINGS = (".tar", ".parquet", ".csv")
GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Place:
    """A reproduction at one scale.

    `directory`: of models, audits and results. `data_root`: the folder with one entry a data set, called as in the
    catalogue. `fetch`: models may come from the hub."""

    scale: Scale
    directory: Path
    data_root: Path | None
    fetch: bool = False

    def checkpoint(self, candidate: Candidate) -> Path:
        """The directory of a hardened candidate, finished or not."""
        return self.directory / "models" / candidate.name

    def audit(self, evaluation: Evaluation, data_set: str) -> Path:
        """The directory of an audit, which all candidates share."""
        return self.directory / "audits" / f"{data_set}-{_slug(self.scale.title(evaluation))}"

    def result(self, candidate: Candidate, evaluation: Evaluation, data_set: str) -> Path:
        """The file of one measured cell."""
        name = f"{candidate.name}-{data_set}-{_slug(self.scale.title(evaluation))}.json"
        return self.directory / "results" / name

    def audited(self, data_set: str) -> str | None:
        """What `--data` calls the audited images; None where they are not here.

        A file goes before a folder: the folder may hold the training images, and the file what was fetched for audits.
        """
        record = CATALOG[data_set]
        if record.embedded is not None:
            return data_set
        folder = self._folder(data_set)
        files = [folder.with_name(data_set + ending) for ending in _ENDINGS] if folder else []
        found = next((file for file in files if file.is_file()), None)
        if found is None and folder and _holds(folder, audited_names(record.split)):
            found = folder
        return f"{data_set}={found}" if found else None

    def training(self) -> str | None:
        """What `--data` calls the training images; None where they are not here.

        A folder whose entries do not say that they are of the training split does not count: an audit's images would be
        trained on."""
        name = self.scale.training
        if CATALOG[name].embedded is not None:
            return name
        folder = self._folder(name)
        return f"{name}={folder}" if folder and any(folder.glob("train*")) else None

    def lacks_of_hardening(self, candidate: Candidate) -> tuple[str, ...]:
        """Why a candidate cannot be loaded or hardened here; empty where it can, or is already."""
        if (self.checkpoint(candidate) / MARKER).is_file():
            return ()
        lacks = self._lacks_of_model(candidate)
        if candidate.method is not None and self.training() is None:
            root, count = self.data_root or Path("ROOT"), self.scale.training_images
            lacks += (
                f"the training images: {count:,}, about {count * IMAGE_BYTES / GB:,.0f} GB, in a folder "
                f"{root / self.scale.training} of files or folders called train..., as those of "
                f"{CATALOG[self.scale.training].parquet}",
            )
        return lacks

    def lacks_of_audit(self, data_set: str) -> tuple[str, ...]:
        """Why a data set cannot be audited here, with the command that fetches it; empty where it can."""
        if self.audited(data_set) is not None:
            return ()
        root, count = self.data_root or Path("ROOT"), self.scale.image_count(CATALOG[data_set])
        return (f"robustree data fetch {data_set} --output {root / data_set}.tar --images {count}",)

    def _lacks_of_model(self, candidate: Candidate) -> tuple[str, ...]:
        where = self.scale.models.get(candidate.backbone)
        if where is None:
            return (f"a {candidate.backbone}: the scale {self.scale.name} has {' and '.join(self.scale.models)} only",)
        if where == "nano" or Path(where).exists():
            return ()
        if where.startswith(open_clip_library.PREFIX) and not open_clip_library.is_installed():
            return (f"the model: {where} asks for pip install 'robustree[open_clip]'",)
        if self.fetch or loading.is_cached(where):
            return ()
        return (
            f"the model: {where} is not in the hub's cache; add --fetch, or say where it is with --model "
            f"{candidate.backbone}=DIRECTORY",
        )

    def _folder(self, data_set: str) -> Path | None:
        return self.data_root / data_set if self.data_root else None


def _holds(folder: Path, splits: tuple[str, ...]) -> bool:
    """Whether a folder has entries that say one of the splits, or entries that say none."""
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")] if folder.is_dir() else []
    try:
        return bool(of_split(names, splits, where=str(folder)))
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine has, in bytes."""

    device: torch.device
    memory: float
    disk: float

    def lacks(self, cost: Cost, recipe: Recipe | None) -> tuple[str, ...]:
        """What a row needs more of than there is."""
        found = []
        if cost.memory > self.memory:
            smaller = ""
            if recipe and recipe.batch_size // recipe.micro_batches > 1:
                smaller = f"; --micro-batches {2 * recipe.micro_batches} computes a batch in smaller parts"
            found.append(
                f"{cost.memory / GB:.1f} GB of memory, and the {self.device.type} has {self.memory / GB:.1f}{smaller}"
            )
        if cost.disk > self.disk:
            found.append(f"{cost.disk / GB:.1f} GB of disk, and {self.disk / GB:.1f} are free")
        return tuple(found)


def inspect_machine(device: torch.device, directory: Path) -> Machine:
    """The memory of a device, and the disk that is free where a directory is or would be."""
    if device.type == "cuda":
        memory = float(torch.cuda.get_device_properties(device).total_memory)
    else:
        memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    there = next(folder for folder in (directory.resolve(), *directory.resolve().parents) if folder.exists())
    return Machine(device=device, memory=memory, disk=float(shutil.disk_usage(there).free))


def _slug(title: str) -> str:
    """ "PGD-20 at 4/255" -> "pgd-20-at-4-255"."""
    return title.lower().replace("/", "-").replace(" ", "-")
