"""Images in many tar or parquet files that together are larger than memory: an index, and reading by position.

The index holds for every image where it is and its class, 24 bytes, in a file that is mapped and not read. It is built
once, shard by shard, and says of every shard what it looked like then."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from robustree.data.decoding import Decoded
from robustree.data.encoded import EncodedImages
from robustree.data.images import augment
from robustree.data.readers import shard_files
from robustree.data.readers.parquet import Groups, scan_parquet
from robustree.data.readers.tars import read_member, scan_tar
from robustree.data.splits import TRAINING
from robustree.writing import whole_file, write_whole

FOLDER = ".robustree"
"""Where the index lies, beside the shards."""
_ENDS = 65536  # bytes at both ends of a shard that are compared; a parquet file says at its end what it holds
_COLUMNS = 3  # two numbers for the place, one for the class


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file as it was indexed: its size, how many images it has, and the sha256 of its two ends and of its rows."""

    name: str
    bytes: int
    images: int
    ends: str
    rows: str


class Shards:
    """Images in files, numbered through all files; an image is read when it is asked for.

    A shard is compared with the index when its first image is read. Of parquet files the groups used last are kept, up
    to `window` rows twice over."""

    def __init__(self, files: Sequence[Path], entries: Sequence[Shard], rows: Tensor, about: Path, *, window: int):
        self._files, self._entries, self._rows, self._about = files, entries, rows, about
        self._groups, self._checked = Groups(rows=2 * window), set[int]()

    @cached_property
    def counts(self) -> Tensor:
        """Images of every shard (S,)."""
        return torch.tensor([entry.images for entry in self._entries])

    @property
    def leaves(self) -> Tensor:
        """Classes (N,), mapped from the index."""
        return self._rows[:, 2]

    @property
    def fingerprint(self) -> str:
        """The sha256 of what the index says of the shards."""
        return sha256(json.dumps([asdict(entry) for entry in self._entries]).encode()).hexdigest()

    def take(self, index: Tensor) -> EncodedImages:
        """The images at `index` (M,), in that order."""
        ends = self.counts.cumsum(0)
        shards = torch.searchsorted(ends, index, right=True)
        inside = (index - ends[shards] + self.counts[shards]).tolist()
        rows, owners = self._rows[index], shards.tolist()
        names = tuple(f"{self._files[owner].name}/{row}" for owner, row in zip(owners, inside, strict=True))

        def read(position: int) -> bytes:
            owner = owners[position]
            self._check(owner)
            file, (first, second) = self._files[owner], rows[position, :2].tolist()
            if file.suffix == ".tar":
                return read_member(file, first, second, names[position])
            return self._groups.read(file, first, second)

        return EncodedImages(str(self._files[0].parent), names, rows[:, 2], read)

    def _check(self, number: int) -> None:
        if number in self._checked:
            return
        entry, start = self._entries[number], int(self.counts[:number].sum())
        if _ends(self._files[number]) != entry.ends:
            raise ValueError(_changed(self._files[number], "the sha256 of its ends differs", self._about))
        if _digest(self._rows[start : start + entry.images]) != entry.rows:
            raise ValueError(_damaged(self._about, "the sha256 of its rows differs"))
        self._checked.add(number)


@dataclass(frozen=True, eq=False)
class Streamed:
    """The images of shards for training, augmented as those of other files are; in memory are those of a batch."""

    shards: Shards
    resolution: int

    @property
    def leaves(self) -> Tensor:
        return self.shards.leaves

    @property
    def counts(self) -> Tensor:
        return self.shards.counts

    @property
    def fingerprint(self) -> str:
        return self.shards.fingerprint

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 3, R, R) in [0, 1]."""
        return augment(Decoded(self.shards.take(index), self.resolution)[:], generator)


def open_shards(
    path: Path,
    classes: tuple[str, ...],
    *,
    window: int,
    splits: Sequence[str] = TRAINING,
    index: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Shards:
    """The tar or parquet files at `path`, by their index; it is built where there is none.

    `window`: how many images a reader will jump among. `index`: the folder of indexes, beside the shards unless given.
    `report` is told (shards done, shards) while the index is built.

    Raises:
        ValueError: no shards, an index that is damaged or cannot be written, a shard that is missing, new or of another
            size than when it was indexed, or what the format's reader refuses.
    """
    files = shard_files(path, splits)
    names = files[0].parent / "classnames.txt"
    spoken = names.read_text(encoding="utf-8") if names.is_file() else ""
    key = sha256(json.dumps([path.name, classes, list(splits), spoken]).encode()).hexdigest()[:12]
    about = (index or files[0].parent / FOLDER) / f"index-{key}.json"
    if not about.exists():
        _build(files, classes, about, report)
    try:
        entries = [Shard(**entry) for entry in json.loads(about.read_text(encoding="utf-8"))]
        total = sum(entry.images for entry in entries)
        table = about.with_suffix(".rows")
        if not total or table.stat().st_size != 8 * _COLUMNS * total:
            raise ValueError(f"{table.name} has another size")
        rows = torch.from_file(str(table), shared=False, size=_COLUMNS * total, dtype=torch.int64)
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(_damaged(about, str(error))) from error
    _compare(files, entries, about)
    return Shards(files, entries, rows.view(total, _COLUMNS), about, window=window)


def _build(files: Sequence[Path], classes: tuple[str, ...], about: Path, report: Callable[[int, int], None]) -> None:
    entries = []
    with ExitStack() as held:
        try:
            table = held.enter_context(whole_file(about.with_suffix(".rows")))
        except OSError as error:
            raise ValueError(
                f"the index of the shards cannot be written into {str(about.parent)!r} ({error.strerror}): name a "
                "folder with --index."
            ) from error
        for done, file in enumerate(files, 1):
            found = (scan_tar if file.suffix == ".tar" else scan_parquet)(file, classes)
            rows = torch.cat([found.places, found.leaves[:, None]], dim=1)
            table.write(rows.numpy().tobytes())
            sizes = {"bytes": file.stat().st_size, "images": len(rows)}
            entries.append(Shard(name=file.name, **sizes, ends=_ends(file), rows=_digest(rows)))
            report(done, len(files))
        if not any(entry.images for entry in entries):
            raise ValueError(f"{str(files[0].parent)!r} holds no images: check the path.")
    write_whole(about, json.dumps([asdict(entry) for entry in entries], indent=0))


def _compare(files: Sequence[Path], entries: Sequence[Shard], about: Path) -> None:
    sizes = {file.name: file.stat().st_size for file in files}
    for entry in entries:
        if entry.name not in sizes:
            raise ValueError(
                f"the shard {entry.name!r} is missing in {str(files[0].parent)!r}: restore it, or delete "
                f"{str(about)!r} to take the shards as they are now."
            )
        if sizes[entry.name] != entry.bytes:
            how = f"{sizes[entry.name]} bytes instead of {entry.bytes}"
            raise ValueError(_changed(files[0].parent / entry.name, how, about))
    known = {entry.name for entry in entries}
    for name in sizes:
        if name not in known:
            raise ValueError(
                f"the shard {name!r} in {str(files[0].parent)!r} is new: remove it, or delete {str(about)!r} to take "
                "the shards as they are now."
            )


def _changed(file: Path, how: str, about: Path) -> str:
    return (
        f"{str(file)!r} is not the shard that was indexed ({how}): restore it, or delete {str(about)!r} to take the "
        "shards as they are now."
    )


def _damaged(about: Path, how: str) -> str:
    return f"the index {str(about)!r} is damaged ({how}): delete it to index the shards anew."


def _ends(file: Path) -> str:
    with file.open("rb") as handle:
        first = handle.read(_ENDS)
        handle.seek(max(len(first), file.stat().st_size - _ENDS))
        return sha256(first + handle.read(_ENDS)).hexdigest()


def _digest(rows: Tensor) -> str:
    return sha256(rows.numpy().tobytes()).hexdigest()
