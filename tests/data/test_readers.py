"""Every format gives the same labelled images, decoded one batch at a time, and says in one sentence what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from robustree.data import Decoded, EncodedImages, data_over, read_images
from robustree.data.decoding import decode
from robustree.data.splits import TEST, audited_names
from robustree.taxonomy import build_forest

from . import formats

CLASSES, LABELS = formats.CLASSES, formats.LABELS


def _two_tars(root: Path) -> Path:
    formats.write_tar(root / "0.tar", [0, 1, 2])
    formats.write_tar(root / "1.tar", [3, 4, 5, 6])
    return root


def _two_parquets(root: Path) -> Path:
    formats.write_parquet(root / "a.parquet", labels=LABELS[:4])
    formats.write_parquet(root / "b.parquet", labels=LABELS[4:])
    return root


WRITERS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda root: formats.write_folder(root / "images"),
    "csv of names": formats.write_csv,
    "csv of numbers": lambda root: formats.write_csv(root, numbers=True),
    "parquet": lambda root: formats.write_parquet(root / "test.parquet"),
    "parquet without names": lambda root: formats.write_parquet(root / "test.parquet", names=None),
    "tar": lambda root: formats.write_tar(root / "0.tar"),
    "folder of tars": _two_tars,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_images_and_labels(tmp_path: Path, kind: str) -> None:
    images = read_images(WRITERS[kind](tmp_path), CLASSES)
    wanted = {formats.image_bytes(number): label for number, label in enumerate(LABELS)}
    assert {images.read(i): int(images.leaves[i]) for i in range(len(images.ids))} == wanted
    assert len(set(images.ids)) == len(LABELS)
    pixels = Decoded(images, 8)
    again = [decode(images.read(i), "", resolution=8).float() / 255 for i in (6, 0, 3)]
    assert torch.equal(pixels[torch.tensor([6, 0, 3])], torch.stack(again))


def test_a_folder_of_parquet_files_is_one_set(tmp_path: Path) -> None:
    images = read_images(_two_parquets(tmp_path), CLASSES)
    assert images.leaves.tolist() == list(LABELS)
    assert images.ids[3:5] == ("a/3", "b/0")
    assert images.read(4) == formats.image_bytes(0)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_tars_of_other_image_formats(tmp_path: Path, suffix: str) -> None:
    images = read_images(formats.write_tar(tmp_path / "x.tar", suffix=suffix), CLASSES)
    assert images.leaves.tolist() == list(LABELS)
    assert Decoded(images, 8)[:].shape == (7, 3, 8, 8)


def test_numbers_go_by_the_names_that_a_file_gives_them(tmp_path: Path) -> None:
    """A copy in another order, as EuroSAT and Pets have it, is read by name."""
    other = ("owl", "dog", "hot_dog")
    labels = [other.index(CLASSES[label].replace(" ", "_")) for label in LABELS]
    path = formats.write_parquet(tmp_path / "other.parquet", names=other, labels=labels)
    assert read_images(path, CLASSES).leaves.tolist() == list(LABELS)
    tar = formats.write_tar(tmp_path / "0.tar")
    (tmp_path / "classnames.txt").write_text("owl\nhot dog\ndog\n")
    assert read_images(tar, CLASSES).leaves.tolist() == [2 - label for label in LABELS]


def test_a_slip_of_spelling_keeps_the_order(tmp_path: Path) -> None:
    path = formats.write_parquet(tmp_path / "slip.parquet", names=("dgo", "hot dog", "owl"))
    assert read_images(path, CLASSES).leaves.tolist() == list(LABELS)


def test_a_slip_of_spelling_in_another_order_is_refused(tmp_path: Path) -> None:
    path = formats.write_parquet(tmp_path / "slip.parquet", names=("owl", "hot dog", "dgo"))
    with pytest.raises(ValueError, match=r"calls a class 'dgo', which is none of the 3 classes, .* rename the class"):
        read_images(path, CLASSES)


def test_reading_a_parquet_file_in_order_reads_every_group_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    path, groups = formats.write_parquet(tmp_path / "x.parquet"), []
    original = parquet.ParquetFile.read_row_group

    def counted(self: parquet.ParquetFile, group: int, **options: object) -> object:
        groups.append(group)
        return original(self, group, **options)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", counted)
    pixels = Decoded(read_images(path, CLASSES), 8)
    assert groups == []
    for start in range(0, 7, 2):
        assert len(pixels[start : start + 2])
    assert groups == [0, 1, 2]


def test_nothing_is_decoded_before_a_batch_asks(tmp_path: Path) -> None:
    asked: list[int] = []

    def read(position: int) -> bytes:
        asked.append(position)
        return formats.image_bytes(position)

    pixels = Decoded(EncodedImages("here", tuple("abcd"), torch.arange(4), read), 8).take(torch.tensor([3, 1, 0]))
    assert asked == []
    assert pixels[1:].shape == (2, 3, 8, 8)
    assert asked == [1, 0]


def _refused(path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        Decoded(read_images(path, CLASSES), 8)[:]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_labels_that_are_no_classes(tmp_path: Path) -> None:
    path = formats.write_parquet(tmp_path / "x.parquet", names=None, labels=(0, 1, 3))
    assert "has the label 3; it is none of the 3 classes" in _refused(path)
    table = formats.write_csv(tmp_path)
    table.write_text(table.read_text().replace("owl", "eagle"))
    assert "has the label 'eagle'" in _refused(table)


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing else")
    assert "is no parquet file that can be read" in _refused(tmp_path / "bad.parquet")
    (tmp_path / "bad.tar").write_bytes(b"\x1f\x8b nothing" * 100)
    assert "is no tar file that can be read" in _refused(tmp_path / "bad.tar")
    (tmp_path / "images.csv").write_text("file,class\na,b\n")
    assert "has the columns file, class; write path,label" in _refused(tmp_path / "images.csv")
    (tmp_path / "notes.txt").write_text("hello")
    assert "is a file of another format" in _refused(tmp_path / "notes.txt")


def test_a_csv_that_names_a_missing_or_a_double_image(tmp_path: Path) -> None:
    table = formats.write_csv(tmp_path)
    whole = table.read_text()
    table.write_text(whole + "9.png,dog\n")
    assert "names the image '9.png', which is not in" in _refused(table)
    table.write_text(whole + "0.png,dog\n")
    assert "holds two images called '0.png'" in _refused(table)


def test_a_tar_that_was_cut_or_lacks_a_label(tmp_path: Path) -> None:
    path = formats.write_tar(tmp_path / "0.tar")
    images = read_images(path, CLASSES)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"ends inside the image 's0000006'"):
        images.read(6)
    whole = formats.write_tar(tmp_path / "1.tar").read_bytes()
    (tmp_path / "1.tar").write_bytes(whole.replace(b"s0000001.cls", b"s0000001.txt"))
    assert _refused(tmp_path / "1.tar")


def test_an_image_in_an_archive_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = formats.write_tar(tmp_path / "0.tar")
    path.write_bytes(path.read_bytes().replace(formats.image_bytes(4)[:8], b"NOTAPNG!"))
    assert _refused(path).startswith(f"'{path}/0/s0000000' could not be read as an image (")


def _train_and_val(root: Path, kind: str) -> Path:
    """Seven training images and, of them, the first three again for validation."""
    if kind == "parquet":
        formats.write_parquet(root / "train-00000-of-00001.parquet")
        formats.write_parquet(root / "val.parquet", labels=LABELS[:3])
    elif kind == "tar":
        formats.write_tar(root / "train-0.tar")
        formats.write_tar(root / "val-0.tar", range(3))
    elif kind == "folders of tars":
        formats.write_tar(root / "train" / "0.tar")
        formats.write_tar(root / "val" / "0.tar", range(3))
    else:
        formats.write_folder(root / "train")
        (root / "val" / "owl").mkdir(parents=True)
        for number in range(3):
            (root / "val" / "owl" / f"{number}.png").write_bytes(formats.image_bytes(number))
    return root


@pytest.mark.parametrize("kind", ["parquet", "tar", "folders of tars", "folders"])
def test_files_that_say_their_split_are_read_by_it(tmp_path: Path, kind: str) -> None:
    root = _train_and_val(tmp_path / "set", kind)
    data = data_over(str(root), build_forest(CLASSES, []))
    assert len(data.training(8).leaves) == 7 and len(data.audit(8).ids) == 3
    assert [len(read_images(root, CLASSES, audited_names(split)).ids) for split in ("test", "valid", "all")] == [3] * 3
    with pytest.raises(ValueError, match="nothing called test: give the files themselves"):
        read_images(root, CLASSES, ("test",))


def test_the_split_of_the_record_comes_first_and_other_names_say_nothing(tmp_path: Path) -> None:
    for name, count in (("test.parquet", 2), ("validation.parquet", 3), ("train.parquet", 4)):
        formats.write_parquet(tmp_path / "set" / name, labels=LABELS[:count])
    found = {
        split: len(read_images(tmp_path / "set", CLASSES, audited_names(split)).ids) for split in ("test", "valid")
    }
    assert found == {"test": 2, "valid": 3}
    for name in ("trains-a.parquet", "pictures.parquet"):
        formats.write_parquet(tmp_path / "other" / name, labels=LABELS[:3])
    assert len(read_images(tmp_path / "other", CLASSES, TEST).ids) == 6
