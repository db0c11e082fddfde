"""One reader a format; `read_images` finds out which one a path asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustree.data.encoded import EncodedImages, files_below
from robustree.data.readers.folder import read_csv, read_folder
from robustree.data.readers.parquet import read_parquet
from robustree.data.readers.tars import read_tars
from robustree.data.splits import TEST, TRAINING, VALIDATION, of_split

FORMATS = "a folder of class sub-folders, parquet or tar files (or a folder of them), or a CSV file of path,label"


def read_images(path: Path, classes: tuple[str, ...], splits: Sequence[str] = ()) -> EncodedImages:
    """Labelled images at `path`: a folder with one sub-folder a class, parquet, CSV, or webdataset tars.

    Where files of a folder, or all its sub-folders, say to which split they belong ("train-0.tar", "val"), those of the
    first of the `splits` that there is are read.

    Raises:
        ValueError: nothing is there, another format, none of the `splits`, or what the format's reader refuses.
    """
    if path.suffix == ".csv" and path.is_file():
        return read_csv(path, classes)
    if (suffix := _shards_of(path)) is not None:
        return _SHARDS[suffix](path, classes, splits)
    if (inside := _folder_of_split(path, splits)) is not None:
        return read_images(inside, classes)
    if path.is_file():
        raise ValueError(f"{str(path)!r} is a file of another format; give {FORMATS}.")
    return read_folder(path, classes)


def shard_files(path: Path, splits: Sequence[str] = ()) -> tuple[Path, ...]:
    """The tar or parquet files that `read_images` would read.

    Raises:
        ValueError: there are none.
    """
    if (suffix := _shards_of(path)) is not None:
        return files_below(path, suffix, splits)
    if (inside := _folder_of_split(path, splits)) is not None:
        return shard_files(inside)
    raise ValueError(
        f"{str(path)!r} holds no shards: only tar and parquet files are read through a window; write the images into "
        "such files, or leave the window out."
    )


_SHARDS = {".parquet": read_parquet, ".tar": read_tars}


def _shards_of(path: Path) -> str | None:
    """How the shards that a path is or directly holds end; None where it is no such file or folder."""
    for suffix in _SHARDS:
        if (path.suffix == suffix and path.is_file()) or (path.is_dir() and any(path.glob(f"*{suffix}"))):
            return suffix
    return None


def _folder_of_split(path: Path, splits: Sequence[str]) -> Path | None:
    """The sub-folder of the first of the `splits` that there is, where all sub-folders are splits."""
    folders = sorted(folder.name for folder in path.iterdir() if folder.is_dir()) if path.is_dir() else []
    if not folders or not set(folders) <= {*TRAINING, *VALIDATION, *TEST}:
        return None
    return path / of_split(folders, splits, where=str(path))[0]


__all__ = ["FORMATS", "read_csv", "read_folder", "read_images", "read_parquet", "read_tars", "shard_files"]
