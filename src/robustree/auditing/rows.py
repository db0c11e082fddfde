"""An audit's folder: rows.jsonl, which only grows, and audit.json, which says what audit the rows belong to.

Rows are read one at a time and never held together: an audit may have millions. No torch is needed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from robustree.lock import sole_writer
from robustree.writing import remove_leftovers, write_whole

ROWS, HEADER, FOREST = "rows.jsonl", "audit.json", "forest.json"
PROTOCOL = ("forest", "threat", "stop", "seed", "images", "labels")
"""What must be the same in an audit that goes on in a folder; models and attacks may be added."""

KEYS = ("image", "model", "head", "attack", "attacked")

Row = dict[str, Any]
Key = tuple[str, str, str, str, str]


@dataclass
class RowFile:
    """The rows on disk: which of them are there (`key in rows`), and `append`, which returns when its rows are safe."""

    file: IO[bytes]
    images: dict[tuple[str, ...], set[str]] = field(default_factory=dict)

    def __contains__(self, key: Key) -> bool:
        return key[0] in self.images.get(key[1:], ())

    def add(self, row: Row) -> None:
        """Remember that a row is there."""
        key = key_of(row)
        self.images.setdefault(key[1:], set()).add(key[0])

    def append(self, rows: Sequence[Row]) -> int:
        """Write the rows that are not there yet; returns how many."""
        fresh = [row for row in rows if key_of(row) not in self]
        self.file.write(b"".join(json.dumps(row).encode() + b"\n" for row in fresh))
        self.file.flush()
        os.fsync(self.file.fileno())
        for row in fresh:
            self.add(row)
        return len(fresh)


@contextmanager
def open_rows(directory: Path, header: Mapping[str, Any]) -> Iterator[RowFile]:
    """The rows of an audit, for this process alone; the header is written, or compared with the one that is there.

    A last line that a crash cut off is removed: its row is made again. So are the temporary files that it left.

    Raises:
        ValueError: another process writes there, the folder holds another audit, or its files are damaged.
    """
    with sole_writer(directory / ROWS, doing="another audit") as file:
        remove_leftovers(directory, (HEADER, FOREST))  # nobody else writes these while the lock is held
        file.seek(0)
        rows, whole = RowFile(file), 0

        def whole_lines() -> Iterator[bytes]:
            nonlocal whole
            for line in file:
                if line.endswith(b"\n"):
                    whole += len(line)
                    yield line

        for row in _parsed(whole_lines(), directory / ROWS):
            rows.add(row)
        if whole and not (directory / HEADER).exists():
            raise ValueError(
                f"{str(directory)!r} holds rows but no {HEADER}, which says what audit they belong to: restore it, or "
                "choose another directory."
            )
        _claim(directory, header)
        if whole < file.seek(0, os.SEEK_END):
            file.truncate(whole)
        yield rows


def read_rows(directory: Path, *, each_line: Callable[[bytes], object] | None = None) -> Iterator[Row]:
    """All rows of an audit, one after the other; `each_line` is given every line of the file as it is read.

    Raises:
        ValueError: the directory holds no audit, or a row is damaged.
    """
    path = Path(directory) / ROWS
    if not path.is_file():
        raise ValueError(f"{str(directory)!r} holds no {ROWS}: give a directory that `robustree audit` wrote.")
    return _read(path, each_line or (lambda line: None))


def key_of(row: Mapping[str, Any]) -> Key:
    """What makes a row unique."""
    return row["image"], row["model"], row["head"], row["attack"], row["attacked"]


def _read(path: Path, each_line: Callable[[bytes], object]) -> Iterator[Row]:
    def lines(file: IO[bytes]) -> Iterator[bytes]:
        for line in file:
            each_line(line)
            yield line

    with path.open("rb") as file:
        yield from _parsed(lines(file), path)


def _parsed(lines: Iterable[bytes], path: Path) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        try:
            row: Row = json.loads(line)
            for name, value in zip(KEYS, key_of(row), strict=True):
                if not isinstance(value, str):
                    raise ValueError(f"its {name} is {value!r}, no text")
                row[name] = sys.intern(value)  # one text for all rows that share it
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"line {number} of {str(path)!r} is no row of an audit ({error}): delete the line (a crash may leave "
                "half of one at the end), and the audit makes its row again."
            ) from error
        yield row


def _claim(directory: Path, header: Mapping[str, Any]) -> None:
    """Write the header, or check that the directory holds the same audit (another command line may resume it)."""
    path = directory / HEADER
    if path.exists():
        found = _header(path)
        for name in PROTOCOL:
            if found.get(name) != json.loads(json.dumps(header[name])):
                raise ValueError(
                    f"{str(directory)!r} holds an audit with another {name} ({found.get(name)}): "
                    "choose another directory."
                )
        header = {**header, **_merged(directory, found, header)}
    write_whole(path, json.dumps(header, indent=1) + "\n")


def _header(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for name, kind in (("heads", dict), ("attacks", dict), ("spearman", dict), ("models", list)):
            if not isinstance(found[name], kind):
                raise ValueError(f"its {name} are {found[name]!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}): restore it, or choose another directory.") from error
    return found


def _merged(directory: Path, found: Mapping[str, Any], header: Mapping[str, Any]) -> dict[str, Any]:
    """The models and attacks of both."""
    for name, head in header["heads"].items():
        if found["heads"].get(name, head) != head:
            raise ValueError(
                f"{str(directory)!r} holds rows of another model called {name.split('/')[0]!r}: "
                "choose another directory, or give the model another name."
            )
    for name, attack in header["attacks"].items():
        if found["attacks"].get(name, attack) != json.loads(json.dumps(attack)):
            raise ValueError(
                f"{str(directory)!r} holds rows of another attack called {name!r}: choose another directory."
            )
    merged: dict[str, Any] = {name: found[name] | header[name] for name in ("heads", "attacks", "spearman")}
    return merged | {"models": list(dict.fromkeys([*found["models"], *header["models"]]))}
