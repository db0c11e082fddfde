"""Data sets of the hub: one shard at a time on disk, of which an evenly spread subset of the images is kept."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from PIL import Image

from robustree.data.readers import read_images
from robustree.data.record import Record
from robustree.writing import whole_file

Download = Callable[[str, str, Path], Path]
"""(repository, file, folder) -> the file, downloaded into the folder."""


@dataclass(frozen=True)
class _Kept:
    """An image of the subset so far. `order` is random, but a function of seed and name."""

    leaf: int
    name: str
    order: bytes
    content: bytes


@dataclass(frozen=True)
class Fetched:
    """How far a fetch is: `done` of `total` shards, with `images` in the last one."""

    done: int
    total: int
    images: int


def fetch(
    record: Record,
    target: Path,
    *,
    count: int,
    seed: int = 0,
    shards: Callable[[Record], Sequence[str]] | None = None,
    download: Download | None = None,
    report: Callable[[Fetched], None] = lambda fetched: None,
) -> int:
    """Write `count` images of a set of the hub, as even over the classes as it allows, into the tar file `target`.

    A shard is removed once it was looked at; `count` images and one shard are held. The subset is a function of the
    seed and the names of the images, not of the order of shards, and files are copied byte by byte. Returns how many
    there are, which is fewer where the set is smaller.

    Raises:
        ValueError: the set has no copy on the hub, `count` is below 1, or a shard cannot be read.
    """
    repository = record.webdataset or record.parquet
    if repository is None:
        raise ValueError(f"{record.name} has no copy on the hub that is known here: give your own files.")
    if count < 1:
        raise ValueError(f"{count} images were asked for: ask for 1 or more.")
    names, get = (shards or _shards)(record), download or _download
    kept: list[_Kept] = []
    for done, name in enumerate(names, 1):
        with tempfile.TemporaryDirectory() as folder:
            shard = get(repository, name, Path(folder))
            if record.webdataset:  # its own class names, so that another order of the classes is noticed
                os.replace(get(repository, "classnames.txt", Path(folder)), shard.parent / "classnames.txt")
            images = read_images(shard, record.classes)
            fresh = [
                (int(leaf), f"{name}/{id}", sha256(f"{seed}/{name}/{id}".encode()).digest(), position)
                for position, (leaf, id) in enumerate(zip(images.leaves, images.ids, strict=True))
            ]
            held = {entry.name: entry for entry in kept}
            known = [(entry.leaf, entry.name, entry.order, -1) for entry in kept]
            kept = [
                held[key] if key in held else _Kept(leaf, key, order, images.read(position))
                for leaf, key, order, position in _even([*known, *fresh], count)
            ]
        report(Fetched(done, len(names), len(fresh)))
    _write(target, sorted(kept, key=lambda entry: entry.name))
    return len(kept)


def _even(entries: Sequence[tuple[int, str, bytes, int]], count: int) -> list[tuple[int, str, bytes, int]]:
    """The first of every class, then the second of every class, ..., by random order; `count` in all.

    Dropping the rest after each shard changes nothing: a later shard can only push an image further back."""
    seen: dict[int, int] = {}
    ranked = []
    for entry in sorted(entries, key=lambda entry: entry[2]):
        seen[entry[0]] = seen.get(entry[0], -1) + 1
        ranked.append((seen[entry[0]], entry[2], entry))
    return [entry for _, _, entry in sorted(ranked)[:count]]


def _write(target: Path, kept: Sequence[_Kept]) -> None:
    """A webdataset shard, in place as a whole or not at all."""
    with whole_file(target) as file, tarfile.open(fileobj=file, mode="w") as archive:
        for number, entry in enumerate(kept):
            kind = {"JPEG": "jpg"}.get(found := _format(entry), found.lower())
            for suffix, content in ((kind, entry.content), ("cls", str(entry.leaf).encode())):
                member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def _format(entry: _Kept) -> str:
    try:
        with Image.open(io.BytesIO(entry.content)) as image:
            found = image.format or ""
    except OSError as error:
        raise ValueError(f"{entry.name!r} could not be read as an image ({error}); nothing was written.") from error
    if found not in ("JPEG", "PNG", "WEBP"):
        raise ValueError(f"{entry.name!r} is {found or 'of no known format'}; JPEG, PNG and WebP go into tars.")
    return found


def _shards(record: Record) -> Sequence[str]:
    """The files of the audited split: test/0.tar and so on as webdatasets have it, or parquet files named by it."""
    from huggingface_hub import HfApi

    repository = record.webdataset or record.parquet or ""
    with _in_a_sentence(repository):
        files = HfApi().list_repo_files(repository, repo_type="dataset")
    return list(shards_of(record, files))


def shards_of(record: Record, files: Sequence[str]) -> Iterator[str]:
    """Those of a repository's files that hold the audited split.

    Raises:
        ValueError: there is none.
    """
    if record.webdataset:
        found = sorted((f for f in files if f.startswith("test/") and f.endswith(".tar")), key=lambda f: (len(f), f))
    else:
        found = sorted(f for f in files if f.endswith(".parquet") and f"{record.split}-" in f)
    if not found:
        raise ValueError(
            f"the copy of {record.name} on the hub has no files of its {record.split} split: give your own."
        )
    yield from found


def _download(repository: str, name: str, folder: Path) -> Path:
    from huggingface_hub import hf_hub_download

    with _in_a_sentence(f"{repository}/{name}"):
        return Path(hf_hub_download(repository, name, repo_type="dataset", local_dir=folder))


@contextmanager
def _in_a_sentence(what: str) -> Iterator[None]:
    """What the hub, or the way there, has against a request."""
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except (HTTPError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{what!r} could not be fetched ({first}): log in, or try again later.") from error
