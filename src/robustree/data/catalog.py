"""Data sets by name: one record each. A new data set is one record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from robustree.data.drawings import Drawings, compose, quickstart_classes, quickstart_drawings, stratified
from robustree.data.folder import Folder, read_folder
from robustree.taxonomy import Forest, build_forest, emoji_forest, leaves_of, read_forest, read_tree

_AUDIT_SEED = 20260101  # backgrounds and poses of the audited drawings: never changed, so figures stay comparable


class TrainingImages(Protocol):
    @property
    def leaves(self) -> Tensor: ...

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class AuditImages:
    """Images (N, 3, H, W) in [0, 1] that never change, their classes (N,) and names."""

    pixels: Tensor
    leaves: Tensor
    ids: tuple[str, ...]

    def subset(self, count: int | None, *, seed: int = 0) -> AuditImages:
        """A fixed subset that covers the classes as evenly as `count` allows; all images for None."""
        if count is None or count == len(self.ids):
            return self
        index = stratified(self.leaves, count, seed=seed)
        return AuditImages(self.pixels[index], self.leaves[index], tuple(self.ids[i] for i in index.tolist()))


@dataclass(frozen=True)
class EmojiTraining:
    """The embedded drawings of the training artists, on a fresh background each time."""

    drawings: Drawings
    size: int

    @property
    def leaves(self) -> Tensor:
        return self.drawings.leaves

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor:
        return compose(self.drawings.take(index), self.size, generator=generator, augment=True)


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One record: the classes, the trees, and how to get images at a resolution.

    `forest(trees)`: the label forest, all shipped trees for None. `training(size)` and `audit(size)`: images for
    hardening, and images for audits (for the embedded set: the two artists that no training image shows)."""

    name: str
    about: str
    forest: Callable[[tuple[str, ...] | None], Forest]
    training: Callable[[int], TrainingImages]
    audit: Callable[[int], AuditImages]


def emoji(split: str = "test") -> DataSet:
    """The embedded emoji drawings; `split` names the audited one ("val" for tuning)."""

    def audit(size: int) -> AuditImages:
        drawings = quickstart_drawings("val" if split == "val" else "test")
        pixels = compose(drawings, size, generator=torch.Generator().manual_seed(_AUDIT_SEED), augment=False)
        return AuditImages(pixels, drawings.leaves, drawings.ids)

    return DataSet(
        name="emoji",
        about="262 everyday things drawn by eight sets of emoji; two of the sets are held out for audits",
        forest=lambda trees: emoji_forest(quickstart_classes(), *([trees] if trees else [])),
        training=lambda size: EmojiTraining(quickstart_drawings("train"), size),
        audit=audit,
    )


CATALOG: dict[str, Callable[[], DataSet]] = {"emoji": emoji}
"""Data sets known by name; anything else is a folder of the user's."""


def open_data(name: str, *, tree_files: tuple[Path, ...] = ()) -> DataSet:
    """A data set by name, or a folder `name/<class>/<image>` with at least one tree file.

    The first tree file defines the classes and their order; the folder's sub-folders must be among them.

    Raises:
        ValueError: neither a known name nor a folder, no tree for a folder, or a bad tree.
    """
    if name in CATALOG and not tree_files:
        return CATALOG[name]()
    path = Path(name)
    if name not in CATALOG and not path.is_dir():
        raise ValueError(
            f"data is {name!r}; give a folder of class sub-folders or one of {', '.join(sorted(CATALOG))}."
        )
    if name in CATALOG:
        known = CATALOG[name]()
        leaves = known.forest(None).leaves
        own = read_forest(tree_files, leaves)
        return DataSet(name=name, about=known.about, forest=_chosen(own), training=known.training, audit=known.audit)
    if not tree_files:
        raise ValueError(f"the folder {name!r} comes without a label tree: name one with --trees my_tree.json.")
    leaves = leaves_of(tree_files[0])
    return folder_data(name, build_forest(leaves, [read_tree(file, leaves) for file in tree_files]))


def folder_data(name: str, forest: Forest) -> DataSet:
    """The images `name/<class>/<image>` with the classes of a forest; they are read when asked for.

    Raises:
        ValueError: on reading, an unknown class or an unreadable image.
    """

    def read(size: int) -> Folder:
        return read_folder(Path(name), resolution=size, classes=forest.leaves)

    def audit(size: int) -> AuditImages:
        folder = read(size)
        return AuditImages(folder.fixed(), folder.leaves, folder.ids)

    return DataSet(name=name, about=f"images in {name}", forest=_chosen(forest), training=read, audit=audit)


def _chosen(forest: Forest) -> Callable[[tuple[str, ...] | None], Forest]:
    return lambda trees: forest.select(trees) if trees else forest
