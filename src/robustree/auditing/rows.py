"""An audit's folder: rows.jsonl, which only grows, and audit.json, which says what audit the rows belong to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from robustree.checkpoint import remove_leftovers
from robustree.lock import sole_writer
from robustree.writing import write_whole

ROWS, HEADER, FOREST = "rows.jsonl", "audit.json", "forest.json"
PROTOCOL = ("forest", "threat", "stop", "seed", "images", "labels")
"""What must be the same in an audit that goes on in a folder; models and attacks may be added."""

Row = dict[str, Any]
Key = tuple[str, str, str, str, str]


@dataclass
class RowFile:
    """The rows on disk: `known` keys, and `append`, which returns only when its rows are safe."""

    file: IO[bytes]
    known: set[Key]

    def append(self, rows: Sequence[Row]) -> int:
        """Write the rows that are not there yet; returns how many."""
        fresh = [row for row in rows if key_of(row) not in self.known]
        self.file.write(b"".join(json.dumps(row).encode() + b"\n" for row in fresh))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.known |= {key_of(row) for row in fresh}
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
        data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        rows = _parsed(whole, directory / ROWS)
        if rows and not (directory / HEADER).exists():
            raise ValueError(
                f"{str(directory)!r} holds rows but no {HEADER}, which says what audit they belong to: restore it, or "
                "choose another directory."
            )
        _claim(directory, header)
        if len(whole) < len(data):
            file.truncate(len(whole))
        yield RowFile(file, {key_of(row) for row in rows})


def read_rows(directory: Path) -> list[Row]:
    """All rows of an audit.

    Raises:
        ValueError: the directory holds no audit, or a row is damaged.
    """
    path = directory / ROWS
    if not path.is_file():
        raise ValueError(f"{str(directory)!r} holds no {ROWS}: give a directory that `robustree audit` wrote.")
    return _parsed(path.read_bytes(), path)


def key_of(row: Mapping[str, Any]) -> Key:
    """What makes a row unique."""
    return row["image"], row["model"], row["head"], row["attack"], row["attacked"]


def _parsed(data: bytes, path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n") if data else (), start=1):
        try:
            rows.append(json.loads(line))
            if not all(isinstance(part, str) for part in key_of(rows[-1])):
                raise ValueError("its image, model, head, attack or level is no text")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"line {number} of {str(path)!r} is no row of an audit ({error}): delete the line, and the audit makes "
                "its row again."
            ) from error
    return rows


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
