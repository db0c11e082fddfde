"""Images in webdataset shards: tar files in which `<key>.jpg` and `<key>.cls` belong together."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

import torch

from robustree.data.encoded import EncodedImages, Scanned, files_below, joined, leaves_of_labels

IMAGES = ("jpg", "jpeg", "png", "webp")


def read_tars(path: Path, classes: tuple[str, ...], splits: Sequence[str] = ()) -> EncodedImages:
    """A tar file or a folder of them (`files_below`); an image is named by shard and key, its label is a class number
    or name.

    The shards must not be compressed, so that an image is read from its place without the ones before it.
    A `classnames.txt` beside the shards, one class a line, says what numbers mean.

    Raises:
        ValueError: a damaged or compressed tar, an image without label or the other way round, or a label that is no
            class.
    """
    files = files_below(path, ".tar", splits)
    return joined(str(path), [_shard(file, classes) for file in files])


def _shard(file: Path, classes: tuple[str, ...]) -> EncodedImages:
    found = scan_tar(file, classes)

    def read(position: int) -> bytes:
        offset, size = found.places[position].tolist()
        return read_member(file, offset, size, found.keys[position])

    return EncodedImages(str(file), tuple(f"{file.stem}/{key}" for key in found.keys), found.leaves, read)


def scan_tar(file: Path, classes: tuple[str, ...]) -> Scanned:
    """The keys and labels of a shard; places are (first byte, bytes). See `read_tars`."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(file, "r:") as archive:
            while (member := archive.next()) is not None:
                key, suffix = _split(member.name)
                if member.isfile() and suffix in IMAGES:
                    images[key] = (member.offset_data, member.size)
                elif member.isfile() and suffix == "cls":
                    content = archive.extractfile(member)
                    labels[key] = content.read().decode("utf-8").strip() if content else ""
                archive.members.clear()  # type: ignore[attr-defined]  (tarfile would keep a kilobyte for every member)
            _require_end(file, archive.offset)
    except (tarfile.TarError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{str(file)!r} is no tar file that can be read ({error}): unpack or fetch it again."
        ) from error
    lonely = sorted(images.keys() ^ labels.keys())
    if lonely:
        missing = "label (.cls)" if lonely[0] in images else f"image ({', '.join('.' + i for i in IMAGES)})"
        raise ValueError(
            f"{str(file)!r} has no {missing} for {lonely[0]!r} and {len(lonely) - 1} more: fetch it again."
        )
    names = file.parent / "classnames.txt"
    spoken = dict(enumerate(names.read_text(encoding="utf-8").splitlines())) if names.is_file() else None
    leaves = leaves_of_labels([labels[key] for key in images], classes, where=str(file), names=spoken)
    return Scanned(tuple(images), leaves, torch.tensor(list(images.values()), dtype=torch.int64).reshape(-1, 2))


def read_member(file: Path, offset: int, size: int, name: str) -> bytes:
    """The bytes of one image of a shard, from its place; `name` is for the error message."""
    with file.open("rb") as handle:
        handle.seek(offset)
        content = handle.read(size)
    if len(content) < size:
        raise ValueError(f"{str(file)!r} ends inside the image {name!r}: fetch it again.")
    return content


def _require_end(file: Path, offset: int) -> None:
    """tarfile stops without a word where a file was cut between two members, or where a header is damaged."""
    with file.open("rb") as handle:
        handle.seek(offset)
        if handle.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"it was cut or damaged at byte {offset}")


def _split(name: str) -> tuple[str, str]:
    """Key and suffix as webdataset splits them: the suffix starts at the first dot of the last part of the path."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return f"{folder}{slash}{stem}".removeprefix("./"), suffix.lower()
