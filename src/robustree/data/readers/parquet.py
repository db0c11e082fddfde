"""Images in parquet files as `datasets` writes them: a column of image files, a column of labels."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from robustree.data.encoded import EncodedImages, Scanned, files_below, joined, leaves_of_labels

IMAGES, LABELS = ("image", "img", "webp", "jpg", "png"), ("label", "fine_label", "cls", "variant")
"""Column names of images and labels, the first that is there counts."""


def read_parquet(path: Path, classes: tuple[str, ...], splits: Sequence[str] = ()) -> EncodedImages:
    """A parquet file or a folder of them (`files_below`): images are structs {bytes, path} or bytes, labels class
    numbers or names.

    Only labels are read now. One group of rows of all the files, its images still encoded, is kept: read in order,
    every group is read once.

    Raises:
        ValueError: pyarrow is missing, no such columns, a damaged file, or a label that is no class.
    """
    files, groups = files_below(path, ".parquet", splits), Groups(rows=0)
    return joined(str(path), [_part(file, classes, groups) for file in files])


def _part(file: Path, classes: tuple[str, ...], groups: Groups) -> EncodedImages:
    found = scan_parquet(file, classes)

    def read(position: int) -> bytes:
        group, row = found.places[position].tolist()
        return groups.read(file, group, row)

    return EncodedImages(str(file), tuple(f"{file.stem}/{key}" for key in found.keys), found.leaves, read)


def scan_parquet(file: Path, classes: tuple[str, ...]) -> Scanned:
    """The labels of a file; keys number the rows, places are (group, row in the group). See `read_parquet`."""
    with _readable(file) as parquet:
        table = parquet.ParquetFile(file)
        _column(table.schema_arrow.names, IMAGES, file)
        labels = _column(table.schema_arrow.names, LABELS, file)
        numbers = table.read(columns=[labels]).column(labels).to_pylist()
        counts = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
        names = _names(table.schema_arrow.metadata, labels)
    if None in numbers:
        raise ValueError(f"{str(file)!r} has rows without a label (row {numbers.index(None)}): remove them.")
    places = [(group, row) for group, count in enumerate(counts) for row in range(count)]
    return Scanned(
        tuple(f"{row:0{len(str(len(numbers)))}d}" for row in range(len(numbers))),
        leaves_of_labels(numbers, classes, where=str(file), names=names),
        torch.tensor(places, dtype=torch.int64).reshape(-1, 2),
    )


class Groups:
    """Groups of rows of parquet files, images still encoded: the last one, and those used last up to `rows` rows."""

    def __init__(self, rows: int):
        self._most = rows
        self._held: OrderedDict[tuple[Path, int], Any] = OrderedDict()

    @property
    def rows(self) -> int:
        """How many rows are in memory."""
        return sum(len(column) for column in self._held.values())

    def read(self, file: Path, group: int, row: int) -> bytes:
        """The bytes of one image."""
        if (file, group) not in self._held:
            with _readable(file) as parquet, parquet.ParquetFile(file) as table:
                name = _column(table.schema_arrow.names, IMAGES, file)
                self._held[file, group] = table.read_row_group(group, columns=[name]).column(name)
        self._held.move_to_end((file, group))
        while len(self._held) > 1 and self.rows > self._most:
            self._held.popitem(last=False)
        value = self._held[file, group][row].as_py()
        content = value["bytes"] if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise ValueError(
                f"{str(file)!r} has no image bytes in row {row} of group {group}: write the images into the file."
            )
        return content


@contextmanager
def _readable(file: Path) -> Iterator[Any]:
    """pyarrow.parquet, whose errors become sentences about the file."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"{str(file)!r} is read by pyarrow: pip install 'robustree[data]'.") from error
    try:
        yield parquet
    except pyarrow.ArrowException as error:
        raise ValueError(f"{str(file)!r} is no parquet file that can be read ({error}): fetch it again.") from error


def _column(names: Sequence[str], wanted: Sequence[str], file: Path) -> str:
    for name in wanted:
        if name in names:
            return name
    raise ValueError(f"{str(file)!r} has the columns {', '.join(names)}; one of {', '.join(wanted)} must be there.")


def _names(metadata: dict[bytes, bytes] | None, column: str) -> dict[int, str] | None:
    """What the file itself calls its class numbers, as `datasets` notes it."""
    if not metadata or b"huggingface" not in metadata:
        return None
    features = json.loads(metadata[b"huggingface"]).get("info", {}).get("features", {})
    names = features.get(column, {}).get("names")
    return dict(enumerate(names)) if names else None
