"""Images in webdataset shards: tar files in which `<key>.jpg` and `<key>.cls` belong together."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from robustree.data.encoded import EncodedImages, files_below, joined, leaves_of_labels

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
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                key, suffix = _split(member.name)
                if not member.isfile():
                    continue
                if suffix in IMAGES:
                    images[key] = (member.offset_data, member.size)
                elif suffix == "cls":
                    content = archive.extractfile(member)
                    labels[key] = content.read().decode("utf-8").strip() if content else ""
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
    keys, places = list(images), list(images.values())

    def read(position: int) -> bytes:
        offset, size = places[position]
        with file.open("rb") as handle:
            handle.seek(offset)
            content = handle.read(size)
        if len(content) < size:
            raise ValueError(f"{str(file)!r} ends inside the image {keys[position]!r}: fetch it again.")
        return content

    names = file.parent / "classnames.txt"
    spoken = dict(enumerate(names.read_text(encoding="utf-8").splitlines())) if names.is_file() else None
    leaves = leaves_of_labels([labels[key] for key in keys], classes, where=str(file), names=spoken)
    return EncodedImages(str(file), tuple(f"{file.stem}/{key}" for key in keys), leaves, read)


def _split(name: str) -> tuple[str, str]:
    """Key and suffix as webdataset splits them: the suffix starts at the first dot of the last part of the path."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return f"{folder}{slash}{stem}".removeprefix("./"), suffix.lower()
