"""From what a user names (a record, a record and its files, or files alone) to images over a forest."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from robustree.data.decoding import Decoded
from robustree.data.emoji import emoji_audit
from robustree.data.encoded import EncodedImages
from robustree.data.images import AuditImages, Augmented, TrainingImages, audited
from robustree.data.readers import FORMATS, read_images
from robustree.data.record import Record
from robustree.data.records import CATALOG
from robustree.data.shards import Streamed, open_shards
from robustree.data.splits import TRAINING, audited_names
from robustree.taxonomy import Forest, build_forest, leaves_of, read_forest, read_tree


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Images under label trees.

    `forest(trees)`: the label forest, all trees for None. `training(size)` and `audit(size)`: images for hardening,
    and images for audits (for the embedded set: the two artists that no training image shows). `record`: what is known
    about a data set of the catalogue."""

    name: str
    about: str
    forest: Callable[[tuple[str, ...] | None], Forest]
    training: Callable[[int], TrainingImages]
    audit: Callable[[int], AuditImages]
    record: Record | None = None


def emoji(split: str = "test") -> DataSet:
    """The embedded emoji drawings; `split` names the audited one ("val" for tuning)."""
    record = CATALOG["emoji"]
    found = data_over("emoji", record.forest())
    return DataSet(
        name=record.name,
        about=record.about,
        forest=record.forest,
        training=found.training,
        audit=partial(emoji_audit, split=split),
        record=record,
    )


def named_record(value: str) -> tuple[Record | None, Path | None]:
    """The record and the files that "cifar10", "cifar10=DIR" or "DIR" name."""
    name, equals, where = value.partition("=")
    if name in CATALOG and not Path(value).exists():
        return CATALOG[name], Path(where) if equals else None
    return None, Path(value)


def open_data(value: str, *, tree_files: tuple[Path, ...] = ()) -> DataSet:
    """A data set by name ("emoji", "cifar10=DIR"), or files of images with at least one tree file.

    The first tree file defines the classes of files without a record; their labels must be among them.

    Raises:
        ValueError: neither a known name nor files, no tree for files, or a bad tree.
    """
    record, path = named_record(value)
    if record is not None:
        return data_over(value, read_forest(tree_files, record.classes) if tree_files else record.forest())
    if path is None or not path.exists():
        raise ValueError(nothing_there(value))
    if not tree_files:
        raise ValueError(f"the data {value!r} comes without a label tree: name one with --trees my_tree.json.")
    leaves = leaves_of(tree_files[0])
    return data_over(value, build_forest(leaves, [read_tree(file, leaves) for file in tree_files]))


def data_over(value: str, forest: Forest, *, native: bool = True) -> DataSet:
    """What `open_data` opens, over a forest; files are read when images are asked for. A folder whose files say their
    split gives its training images for hardening and its test or validation images for audits.

    Small images keep their own size (the record's `native`) unless `native` is false: then they are scaled first.

    Raises:
        ValueError: nothing of that name is there, or its classes are not those of the forest; on asking for images,
            what the reader refuses.
    """
    record, path = named_record(value)
    if record is not None and forest.leaves != record.classes:
        raise ValueError(
            f"the trees have {forest.leaf_count} classes, not the {len(record.classes)} of the {record.name} data: "
            "give --data FOLDER with the trees' classes, or other trees."
        )
    if record is not None and record.embedded is not None and path is None:
        training, audit = record.embedded.training, record.embedded.audit
    elif path is None or not path.exists():
        raise ValueError(nothing_there(value))
    else:
        own = record.native if record and native else None
        training, audit = _from_files(path, forest.leaves, own, audited_names(record.split if record else ""))
    return DataSet(
        name=value,
        about=record.about if record else f"images in {value}",
        forest=lambda trees: forest.select(trees) if trees else forest,
        training=training,
        audit=audit,
        record=record,
    )


def streamed(
    value: str,
    forest: Forest,
    *,
    window: int,
    index: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> DataSet:
    """What `data_over` gives, with training images from tar or parquet shards of any number (`open_shards`).

    Raises:
        ValueError: as `data_over` and `open_shards`, or the images are in the package.
    """
    record, path = named_record(value)
    found, own = data_over(value, forest), record.native if record else None
    if path is None:
        raise ValueError(
            f"window is {window}, but the images of {value} are in the package, not in shards: leave it out."
        )
    shards = open_shards(path, forest.leaves, window=window, index=index, report=report)
    return replace(found, training=lambda size: Streamed(shards, own or size))


def nothing_there(value: str) -> str:
    """Why the data called `value` cannot be opened, and what can."""
    record, path = named_record(value)
    if record is not None:
        missing = (
            f"there is nothing at {str(path)!r}" if path else f"the images of {record.name} are not in the package"
        )
        return f"{missing}; give --data {record.name}=PATH ({FORMATS}); robustree data fetch {record.name} gets them."
    close = difflib.get_close_matches(value, CATALOG, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    return f"data is {value!r}{guess}; give {FORMATS}, or a name: {', '.join(CATALOG)}."


def _from_files(
    path: Path, classes: tuple[str, ...], native: int | None, audit: Sequence[str]
) -> tuple[Callable[[int], TrainingImages], Callable[[int], AuditImages]]:
    def read(size: int, splits: Sequence[str]) -> tuple[EncodedImages, int]:
        return read_images(path, classes, splits), native or size

    return lambda size: Augmented(Decoded(*read(size, TRAINING))), lambda size: audited(*read(size, audit))
