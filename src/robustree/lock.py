"""One writer to a directory: an advisory lock that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def sole_writer(path: Path, *, doing: str) -> Iterator[IO[bytes]]:
    """The file at `path`, made if need be, open for appending and locked for this process alone.

    `doing` names what the holder does ("another audit", "another run") in the refusal of everybody else.

    Raises:
        ValueError: another process holds the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, doing) as file:
        yield file


def _locked(path: Path, doing: str) -> IO[bytes]:
    while True:
        file = path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink:
                return file  # otherwise its last holder removed it after we opened it, and nobody else can find it
        except BlockingIOError as error:
            file.close()
            raise ValueError(
                f"{doing} is writing into {str(path.parent)!r}: wait for it, or choose another directory."
            ) from error
        file.close()
