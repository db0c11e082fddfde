"""Images in parquet files as `datasets` writes them: a column of image files, a column of labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustree.data.encoded import EncodedImages, files_below, joined, leaves_of_labels

IMAGES, LABELS = ("image", "img", "webp", "jpg", "png"), ("label", "fine_label", "cls", "variant")
"""Column names of images and labels, the first that is there counts."""


def read_parquet(path: Path, classes: tuple[str, ...], splits: Sequence[str] = ()) -> EncodedImages:
    """A parquet file or a folder of them (`files_below`): images are structs {bytes, path} or bytes, labels class
    numbers or names.

    Only labels are read now. One group of rows, decoded from the file but with its images still encoded, is kept: read
    in order, every group is read once.

    Raises:
        ValueError: pyarrow is missing, no such columns, a damaged file, or a label that is no class.
    """
    files = files_below(path, ".parquet", splits)
    return joined(str(path), [_part(file, classes, prefix=file.stem) for file in files])


def _part(file: Path, classes: tuple[str, ...], *, prefix: str) -> EncodedImages:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"{str(file)!r} is read by pyarrow: pip install 'robustree[data]'.") from error
    try:
        table = parquet.ParquetFile(file)
        schema = table.schema_arrow
        images, labels = (_column(schema.names, wanted, file) for wanted in (IMAGES, LABELS))
        numbers = table.read(columns=[labels]).column(labels).to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{str(file)!r} is no parquet file that can be read ({error}): fetch it again.") from error
    if None in numbers:
        raise ValueError(f"{str(file)!r} has rows without a label (row {numbers.index(None)}): remove them.")
    groups = _Groups(table, images, str(file))
    return EncodedImages(
        str(file),
        tuple(f"{prefix}/{row:0{len(str(len(numbers)))}d}" for row in range(len(numbers))),
        leaves_of_labels(numbers, classes, where=str(file), names=_names(schema.metadata, labels)),
        groups.read,
    )


class _Groups:
    """One column of images, of which one group of rows is in memory."""

    def __init__(self, table: Any, column: str, where: str):
        self._table, self._column, self._where = table, column, where
        counts = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
        self._places = [(group, row) for group, count in enumerate(counts) for row in range(count)]
        self._group, self._rows = -1, None

    def read(self, position: int) -> bytes:
        group, row = self._places[position]
        if group != self._group or self._rows is None:
            self._rows = self._table.read_row_group(group, columns=[self._column]).column(self._column)
            self._group = group
        value = self._rows[row].as_py()
        content = value["bytes"] if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise ValueError(f"{self._where!r} has no image bytes in row {position}: write the images into the file.")
        return content


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
