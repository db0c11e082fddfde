"""`log.csv`: one row a step, each step once, whatever interrupted the run."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from robustree.writing import write_whole

LOG = "log.csv"


class Log:
    """The rows of a run that has made `start` steps; rows after them are dropped: their steps are made again.

    Raises:
        ValueError: the file does not hold the steps before `start`.
    """

    def __init__(self, directory: Path, start: int):
        self._path = directory / LOG
        self._rows = _read(self._path, start) if start and self._path.exists() else []

    def add(self, step: int, logs: Mapping[str, float]) -> None:
        self._rows.append({"step": step, **logs})

    def write(self) -> None:
        if self._rows:
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=list(self._rows[-1]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)
            write_whole(self._path, text.getvalue())


def _read(path: Path, start: int) -> list[dict[str, float]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        rows = [row | {"step": int(row["step"])} for row in rows if row["step"] <= start]
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}): restore it, or delete it to log anew.") from error
    steps = [row["step"] for row in rows]
    if steps != list(range(start - len(steps) + 1, start + 1)):
        raise ValueError(
            f"{str(path)!r} is damaged (it lacks steps before {start}): restore it, or delete it to log anew."
        )
    return rows
