"""Shards read through an index: the same images as without one, memory that does not grow, and what is refused."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from robustree.data import CATALOG, Shards, open_shards, read_images, streamed
from robustree.data.readers.parquet import Groups

from . import formats

CLASSES, LABELS = formats.CLASSES, formats.LABELS


def _tars(root: Path) -> Path:
    formats.write_tar(root / "0.tar", [0, 1, 2])
    formats.write_tar(root / "1.tar", [3])
    formats.write_tar(root / "2.tar", [4, 5, 6])
    return root


def _parquets(root: Path) -> Path:
    formats.write_parquet(root / "train-a.parquet", labels=LABELS[:4])
    formats.write_parquet(root / "train-b.parquet", labels=LABELS[4:])
    formats.write_parquet(root / "val.parquet", labels=LABELS[:1])
    return root


def _opened(path: Path, **options: object) -> Shards:
    return open_shards(path, CLASSES, window=4, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("write", [_tars, _parquets])
def test_the_images_are_those_that_are_read_without_an_index(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    root = write(tmp_path / "set")
    plain = read_images(root, CLASSES, ("train",))
    scans: list[tuple[int, int]] = []
    for _ in range(2):  # built, then found
        shards = _opened(root, report=lambda *progress: scans.append(progress))
        assert torch.equal(shards.leaves, plain.leaves)
        order = torch.tensor([6, 0, 3, 3, 5, 1, 2, 4])
        taken, wanted = shards.take(order), plain.take(order)
        assert [taken.read(i) for i in range(8)] == [wanted.read(i) for i in range(8)]
        assert torch.equal(taken.leaves, wanted.leaves)
    assert scans == [(done, len(shards.counts)) for done in range(1, len(shards.counts) + 1)]
    assert read_images(root, CLASSES, ("train",)).ids == plain.ids  # the index is not taken for images


def test_the_index_can_lie_elsewhere_and_belongs_to_the_classes(tmp_path: Path) -> None:
    root = _tars(tmp_path / "set")
    _opened(root, index=tmp_path / "kept")
    assert not (root / ".robustree").exists()
    renamed = open_shards(root, (*CLASSES, "emu"), window=4, index=tmp_path / "kept")
    assert len(list((tmp_path / "kept").glob("*.json"))) == 2
    (root / "classnames.txt").write_text("owl\nhot dog\ndog\n")
    assert renamed.leaves.tolist() == list(LABELS)
    assert _opened(root, index=tmp_path / "kept").leaves.tolist() == [2 - label for label in LABELS]
    with pytest.raises(ValueError, match=r"cannot be written into '.*/0.tar' \(.*\): name a folder with --index"):
        open_shards(root, CLASSES[::-1], window=4, index=root / "0.tar")


def _edited(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(formats.image_bytes(3)[:8], b"NOTAPNG!"))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda root: (root / "1.tar").unlink(), "the shard '1.tar' is missing in "),
    "new": (lambda root: formats.write_tar(root / "3.tar", [0]), "the shard '3.tar' in .* is new: remove it"),
    "longer": (
        lambda root: formats.write_tar(root / "1.tar", range(7)),
        r"1.tar' is not the shard that was indexed \(\d+ bytes instead of \d+\): restore it, or delete '.*json'",
    ),
    "cut": (
        lambda root: (root / "1.tar").write_bytes((root / "1.tar").read_bytes()[:2000]),
        r"\(2000 bytes instead of 10240\)",
    ),
    "edited": (lambda root: _edited(root / "1.tar"), r"was indexed \(the sha256 of its ends differs\): restore it"),
    "index": (
        lambda root: next((root / ".robustree").glob("*.json")).write_text("[{}]"),
        r"the index '.*json' is damaged \(.*\): delete it to index the shards anew",
    ),
    "rows cut": (
        lambda root: next((root / ".robustree").glob("*.rows")).write_bytes(b"12345678"),
        r"is damaged \(index-\w+.rows has another size\)",
    ),
    "rows changed": (
        lambda root: next((root / ".robustree").glob("*.rows")).write_bytes(bytes(7 * 24)),
        r"is damaged \(the sha256 of its rows differs\)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_shards_that_are_not_those_of_the_index_are_refused(tmp_path: Path, fault: str) -> None:
    root = _tars(tmp_path / "set")
    _opened(root)
    change, sentence = FAULTS[fault]
    change(root)
    with pytest.raises(ValueError, match=sentence) as caught:
        _opened(root).take(torch.tensor([3])).read(0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [10_000, 3_000, 2_048])
def test_a_truncated_tar_is_refused_and_leaves_no_index(tmp_path: Path, size: int) -> None:
    """Inside an image, inside a header, and between two members, where tarfile itself sees no fault."""
    root = _tars(tmp_path / "set")
    whole = (root / "2.tar").read_bytes()
    (root / "2.tar").write_bytes(whole[:size] if size != 10_000 else whole[:5_000].rstrip(b"\0"))
    with pytest.raises(ValueError, match=r"2.tar' is no tar file that can be read \(.*\): unpack or fetch it again"):
        _opened(root)
    assert list((root / ".robustree").iterdir()) == []


def test_what_is_no_shards(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no shards: only tar and parquet files are read through a window"):
        _opened(formats.write_folder(tmp_path / "images"))
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(ValueError, match="holds no images"):
        _opened(tmp_path / "empty.tar")
    with pytest.raises(ValueError, match="but the images of emoji are in the package, not in shards: leave it out"):
        streamed("emoji", CATALOG["emoji"].forest(), window=4)


def test_only_the_last_groups_of_parquet_files_are_in_memory(tmp_path: Path) -> None:
    files = [formats.write_parquet(tmp_path / f"{number}.parquet") for number in range(3)]
    groups = Groups(rows=5)
    for file in files:
        for group, count in enumerate((3, 3, 1)):
            for row in range(count):
                assert groups.read(file, group, row) == formats.image_bytes(3 * group + row)
                assert groups.rows <= 5
    assert groups.rows == 4


def _many(root: Path, shards: int) -> Path:
    root.mkdir()
    content = bytes(2_000)
    for shard in range(shards):
        with tarfile.open(root / f"{shard:03d}.tar", "w") as archive:
            for number in range(50):
                for suffix, data in (("jpg", content), ("cls", b"1")):
                    member = tarfile.TarInfo(f"{number:03d}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return root


def _peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_shards(tmp_path: Path) -> None:
    """To build the index and to read batches from it; without an index it does grow."""
    few, many = _many(tmp_path / "few", 2), _many(tmp_path / "many", 16)

    def read(root: Path) -> None:
        shards = _opened(root)
        for start in range(0, len(shards.leaves), 50):
            batch = shards.take(torch.arange(start, start + 50))
            assert all(len(batch.read(i)) == 2_000 for i in range(50))

    _opened(_many(tmp_path / "first", 1))  # imports
    assert _peak(lambda: _opened(many)) < _peak(lambda: _opened(few)) + 30_000
    assert _peak(lambda: read(many)) < _peak(lambda: read(few)) + 30_000
    assert _peak(lambda: read_images(many, CLASSES)) > 3 * _peak(lambda: read_images(few, CLASSES))
