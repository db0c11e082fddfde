"""Images that visitors bring: small enough, really images, read once and deleted."""

from __future__ import annotations

from pathlib import Path

from robustree.data import read_image
from robustree.demo.bench import Sample

MAX_BYTES = 10_000_000
_LONGEST_NAME = 40


def read_upload(path: Path, *, resolution: int) -> Sample:
    """An uploaded file as an unlabelled sample, its centre square at `resolution`; the file is deleted.

    Raises:
        ValueError: it is larger than `MAX_BYTES`, or not an image that `read_image` reads.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(
                f"{path.name!r} has {size / 1e6:.1f} MB; at most {MAX_BYTES / 1e6:.0f} MB are taken: make it smaller."
            )
        try:
            pixels = read_image(path, resolution=resolution)
        except ValueError as refused:  # the path is the server's, and no business of the visitor's
            raise ValueError(str(refused).replace(str(path), path.name)) from refused
    finally:
        path.unlink(missing_ok=True)
    name = path.name if len(path.name) <= _LONGEST_NAME else path.name[: _LONGEST_NAME - 1] + "…"
    return Sample(name=name, pixels=pixels.float() / 255, leaf=None)
