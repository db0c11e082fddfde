"""The class lists: complete, unique, in label order, and free of the known slips of other copies."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import robustree

FOLDER = Path(robustree.__file__).parent / "data" / "classes"
SIZES = {
    "imagenet": 1000,
    "tiny_imagenet": 200,
    "imagenet_r": 200,
    "cifar10": 10,
    "cifar100": 100,
    "stl10": 10,
    "caltech101": 102,
    "caltech256": 257,
    "pets": 37,
    "flowers102": 102,
    "food101": 101,
    "cars": 196,
    "aircraft": 100,
    "sun397": 397,
    "dtd": 47,
    "eurosat": 10,
    "pcam": 2,
}
# Label numbers as the data sets publish them.
ANCHORS = [
    ("imagenet", 0, "tench"),
    ("imagenet", 207, "Golden Retriever"),
    ("imagenet", 517, "construction crane"),
    ("imagenet", 134, "crane bird"),
    ("imagenet", 999, "toilet paper"),
    ("imagenet_r", 0, "goldfish"),
    ("imagenet_r", 199, "acorn"),
    ("cifar10", 1, "automobile"),
    ("cifar100", 26, "crab"),
    ("cifar100", 99, "worm"),
    ("stl10", 2, "car"),
    ("caltech101", 4, "background"),
    ("caltech101", 37, "off-center face"),
    ("caltech256", 256, "clutter"),
    ("pets", 0, "Abyssinian"),
    ("pets", 36, "Yorkshire Terrier"),
    ("flowers102", 101, "blackberry lily"),
    ("food101", 16, "cheesecake"),
    ("food101", 17, "cheese plate"),
    ("cars", 0, "AM General Hummer SUV 2000"),
    ("cars", 195, "smart fortwo Convertible 2012"),
    ("aircraft", 99, "Yak-42"),
    ("sun397", 206, "indoor jail"),
    ("sun397", 207, "jail cell"),
    ("dtd", 46, "zigzagged"),
    ("eurosat", 0, "annual crop land"),
    ("eurosat", 9, "lake or sea"),
    ("pcam", 1, "lymph node containing metastatic tumor tissue"),
]


def lines(name: str) -> list[str]:
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")


def test_no_list_is_missing_or_unknown() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == {*SIZES, "imagenet.wnids", "tiny_imagenet.wnids"}


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_names_are_unique_and_clean(name: str, size: int) -> None:
    names = lines(name)
    assert len(names) == len({each.casefold() for each in names}) == size
    for each in names:
        assert each.isprintable() and each == " ".join(each.split()) and "_" not in each


@pytest.mark.parametrize(("name", "label", "expected"), ANCHORS)
def test_labels_have_their_numbers(name: str, label: int, expected: str) -> None:
    assert lines(name)[label] == expected


def test_wnids_are_in_label_order_and_tiny_imagenet_has_the_names_of_imagenet() -> None:
    imagenet = dict(zip(lines("imagenet.wnids"), lines("imagenet"), strict=True))
    tiny = dict(zip(lines("tiny_imagenet.wnids"), lines("tiny_imagenet"), strict=True))
    assert list(imagenet) == sorted(imagenet) and list(tiny) == sorted(tiny)
    assert tiny.items() <= imagenet.items()
    assert imagenet["n04008634"] == "projectile" and imagenet["n04355933"] == "dark glasses"


def test_alphabetical_lists_are_alphabetical() -> None:
    for name in ("pets", "dtd", "cifar100", "stl10"):
        assert lines(name) == sorted(lines(name), key=str.casefold)


def test_every_list_has_an_attribution_that_the_wheel_carries() -> None:
    text = (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert all(name in text for name in SIZES)
    project = Path(__file__).parents[2] / "pyproject.toml"
    listed = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["license-files"]
    assert "src/robustree/data/classes/ATTRIBUTION.md" in listed
