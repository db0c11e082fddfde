"""Fetching from the hub, with a folder in the place of the hub: one shard at a time, an even and fixed subset."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from robustree.data import CATALOG, Record, read_images
from robustree.data.hub import fetch, shards_of

from . import formats


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `_Hub` counts shards, nobody else's come and go."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


class _Hub:
    """Shards in a folder; notes how many are on the other side at a time."""

    def __init__(self, root: Path, shards: Sequence[Sequence[int]]):
        self.root, self.names, self.most = root, [f"test/{n}.tar" for n in range(len(shards))], 0
        for name, numbers in zip(self.names, shards, strict=True):
            formats.write_tar(root / name, numbers)
        (root / "classnames.txt").write_text("\n".join(formats.CLASSES) + "\n")

    def shards(self, record: Record) -> Sequence[str]:
        return self.names

    def download(self, repository: str, name: str, folder: Path) -> Path:
        assert repository == "somebody/wds_things"
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.root / name, target)
        self.most = max(self.most, len(list(folder.parent.rglob("test/*.tar"))))
        return target


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    record = replace(CATALOG["cifar10"], webdataset="somebody/wds_things")
    monkeypatch.setattr(Record, "classes", formats.CLASSES)
    return record


def test_the_subset_is_even_and_its_files_are_copies(tmp_path: Path, record: Record) -> None:
    hub = _Hub(tmp_path / "hub", [[3, 1, 5], [0, 2], [4, 6]])
    count = fetch(record, tmp_path / "x.tar", count=6, shards=hub.shards, download=hub.download)
    images = read_images(tmp_path / "x.tar", formats.CLASSES)
    assert count == len(images.ids) == 6
    assert Counter(images.leaves.tolist()) == {0: 2, 1: 2, 2: 2}
    originals = {formats.image_bytes(number): label for number, label in enumerate(formats.LABELS)}
    assert all(originals[images.read(i)] == int(images.leaves[i]) for i in range(6))


@pytest.mark.parametrize("count", [1, 2, 4, 6, 7])
def test_dropping_images_shard_by_shard_changes_nothing(tmp_path: Path, record: Record, count: int) -> None:
    """The images that are kept are those that one look at all shards together chooses, in whichever order they come."""
    hub = _Hub(tmp_path / "hub", [[3, 1, 5], [0, 2], [4, 6]])
    kept = []
    for number, order in enumerate(([0, 1, 2], [2, 0, 1], [1, 2, 0])):
        names = [hub.names[n] for n in order]
        target = tmp_path / f"{number}.tar"
        fetch(record, target, count=count, seed=3, shards=lambda _, names=names: names, download=hub.download)
        kept.append(target.read_bytes())
    assert kept[0] == kept[1] == kept[2]


def test_a_smaller_set_is_taken_whole_and_other_seeds_choose_others(tmp_path: Path, record: Record) -> None:
    hub = _Hub(tmp_path / "hub", [[3, 1, 5], [0, 2], [4, 6]])
    assert fetch(record, tmp_path / "all.tar", count=99, shards=hub.shards, download=hub.download) == 7
    chosen = set()
    for seed in range(8):
        fetch(record, tmp_path / "one.tar", count=1, seed=seed, shards=hub.shards, download=hub.download)
        chosen.add((tmp_path / "one.tar").read_bytes())
    assert len(chosen) > 2


def test_class_names_of_the_hub_in_another_order_are_followed(tmp_path: Path, record: Record) -> None:
    hub = _Hub(tmp_path / "hub", [list(range(7))])
    (tmp_path / "hub" / "classnames.txt").write_text("owl\nhot dog\ndog\n")
    fetch(record, tmp_path / "x.tar", count=7, shards=hub.shards, download=hub.download)
    images = read_images(tmp_path / "x.tar", formats.CLASSES)
    assert sorted(images.leaves.tolist()) == sorted(2 - label for label in formats.LABELS)


def test_a_fetch_that_fails_writes_nothing(tmp_path: Path, record: Record) -> None:
    hub = _Hub(tmp_path / "hub", [[0, 1], [2]])
    (tmp_path / "hub" / "test" / "1.tar").write_bytes(b"broken" * 200)
    with pytest.raises(ValueError, match="is no tar file that can be read"):
        fetch(record, tmp_path / "out" / "x.tar", count=2, shards=hub.shards, download=hub.download)
    assert not list((tmp_path / "out").iterdir() if (tmp_path / "out").exists() else [])
    with pytest.raises(ValueError, match="has no copy on the hub"):
        fetch(CATALOG["tiny_imagenet"], tmp_path / "x.tar", count=2)


def test_which_files_hold_the_audited_split() -> None:
    files = ["README.md", "nshards.txt", "test/10.tar", "test/2.tar", "train/0.tar"]
    assert list(shards_of(CATALOG["cifar10"], files)) == ["test/2.tar", "test/10.tar"]
    files = ["data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"]
    food = replace(CATALOG["food101"], webdataset=None)
    assert list(shards_of(food, files)) == ["data/validation-00000-of-00001.parquet"]
    with pytest.raises(ValueError, match="no files of its test split"):
        list(shards_of(replace(food, split="test"), files))


def test_a_hub_that_cannot_be_reached_is_said_in_a_sentence(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port of this machine on which nobody listens."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's library waits between its tries
    with pytest.raises(ValueError, match=r"could not be fetched \(.*\): log in, or try again later\.$"):
        fetch(record, tmp_path / "x.tar", count=2)
    assert not (tmp_path / "x.tar").exists()
