"""`robustree data list`, `data check` and `data fetch`: data sets and their files, without a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from robustree.cli.endings import keeping
from robustree.cli.loading import forest_of_trees
from robustree.cli.parsing import parse
from robustree.cli.progress import Bar
from robustree.data import CATALOG, EncodedImages, Record, named_record, nothing_there, read_images
from robustree.data.hub import Fetched, fetch
from robustree.data.inspecting import Inspection, inspect_images
from robustree.data.readers.folder import labelled_files
from robustree.data.splits import TRAINING, audited_names

FOUND = 3
"""The exit code of a check that found something, as of `audit --strict`."""


@dataclass(frozen=True, kw_only=True)
class List:
    """List the data sets that are known by name."""

    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """Count, decode and compare every image; exit code 3 if something asks for a look."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """name=PATH for a data set of the list, or a path."""
    train: Path | None = None
    """Training images that must not be among these; it may be the same folder, if its files say their split."""
    trees: tuple[str, ...] = ()
    """The trees that say what the classes are, for data without a record."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Get an evenly spread subset of a data set from the hub, one shard at a time on disk."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """A data set of the list."""
    output: Path
    """The tar file that is written; give it to --data as name=FILE."""
    images: int = 1000
    """How many images, spread evenly over the classes."""
    seed: int = 0


Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Fetch, tyro.conf.subcommand("fetch")]
)


def run(arguments: Sequence[str]) -> int:
    options = parse(Command, arguments, command="data", about="List, check or fetch data sets.")
    if isinstance(options, Check):
        return _check(options)
    if isinstance(options, Fetch):
        return _fetch(options)
    if options.json:
        print(json.dumps([_entry(record) for record in CATALOG.values()], indent=1))
    else:
        print(table_of_data_sets(), end="")
    return 0


def table_of_data_sets() -> str:
    """A Markdown table of the catalogue, one row a data set, as docs/data.md holds it."""
    rows: list[tuple[str, ...]] = [("name", "classes", "images", "size", "trees", "on the hub", "licence")]
    for record in CATALOG.values():
        size = f"{record.native}" if record.native else "the model's"
        hub = record.webdataset or record.parquet or ("in the package" if record.embedded else "-")
        count = f"{record.images:,} {record.split}"
        trees = " ".join(record.trees) or "-"
        rows.append((record.name, str(len(record.classes)), count, size, trees, hub, record.licence))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    padded = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"| {line} |\n" for line in padded)


def _entry(record: Record) -> dict[str, Any]:
    plain = ("name", "about", "images", "split", "native", "webdataset", "parquet", "licence", "prompt", "traps")
    lists = {"classes": list(record.classes), "trees": list(record.trees), "templates": list(record.ensemble)}
    return {name: getattr(record, name) for name in plain} | lists


def _check(options: Check) -> int:
    record, path = named_record(options.data)
    if path is None or not path.exists():
        raise ValueError(nothing_there(options.data))
    classes = _classes(record, path, options)
    images = read_images(path, classes, audited_names(record.split if record else ""))
    train = read_images(options.train, classes, TRAINING) if options.train else None
    total, done = len(images.ids) + (len(train.ids) if train else 0), 0
    with keeping("nothing was changed"), Bar(Console(stderr=True), "check", total) as bar:

        def report() -> None:
            nonlocal done
            done += 1
            bar.update(done, images=1, work=1, doing="")

        found = inspect_images(images, classes, record=record, train=train, report=report)
    print(json.dumps(asdict(found), indent=1, ensure_ascii=False) if options.json else _said(found, images))
    return FOUND if found.findings else 0


def _classes(record: Record | None, path: Path, options: Check) -> tuple[str, ...]:
    if options.trees or record is not None:
        return forest_of_trees(options.trees, options.data).leaves
    if path.is_dir() and not any(path.glob("*.parquet")) and not any(path.glob("*.tar")):
        return labelled_files(path)[1]
    raise ValueError(f"nothing says what the classes of {options.data!r} are: give --trees, or name=PATH.")


def _said(found: Inspection, images: EncodedImages) -> str:
    least, most = min(found.counts.values()), max(found.counts.values())
    lines = [
        f"{found.images:,} images of {len(found.counts)} classes in {images.where}",
        f"{least:,} to {most:,} images a class",
    ]
    if found.smallest and found.largest:
        lines.append("sizes {} x {} to {} x {} pixels".format(*found.smallest, *found.largest))
    lines += [f"look: {finding}" for finding in found.findings] or ["nothing found: every image decodes, none is twice"]
    return "\n".join(lines)


def _fetch(options: Fetch) -> int:
    if options.name not in CATALOG:
        raise ValueError(f"{options.name!r} is none of the data sets {', '.join(CATALOG)}.")
    with keeping("nothing was written"), Bar(Console(stderr=True), f"fetch {options.name}", 1.0) as bar:

        def report(fetched: Fetched) -> None:
            work = 1 / fetched.total
            bar.update(fetched.done / fetched.total, images=fetched.images, work=work, doing=f"shard {fetched.done}")

        count = fetch(CATALOG[options.name], options.output, count=options.images, seed=options.seed, report=report)
    print(f"{count} images in {options.output}; use them with --data {options.name}={options.output}")
    return 0
