"""The embedded drawings and the five trees over their classes, as files."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robustree.taxonomy.shipped import EMOJI_TREES, shipped_forest

FOLDER = files("robustree").joinpath("data", "quickstart")
LIBRARY = files("robustree.taxonomy").joinpath("library")
INDEX: dict[str, Any] = json.loads(FOLDER.joinpath("classes.json").read_text("utf-8"))
IMAGES: list[dict[str, Any]] = INDEX["images"]
NAMES = tuple(row["name"] for row in INDEX["classes"])
SLUGS = tuple(row["slug"] for row in INDEX["classes"])
HELD_OUT = {"twemoji", "emojione"}
SIDE = 72


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(FOLDER.joinpath("images.zip").read_bytes())) as archive:
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert len(set(archive.namelist())) == len(archive.namelist())
        return {name: archive.read(name) for name in archive.namelist()}


def _of(split: str) -> list[dict[str, Any]]:
    return [image for image in IMAGES if image["split"] == split]


def test_the_classes_have_well_formed_unique_names() -> None:
    assert len(NAMES) == len(set(NAMES)) == len(set(SLUGS)) == 262
    for row in INDEX["classes"]:
        assert re.fullmatch(r"[a-z][a-z -]*[a-z]", row["name"])
        assert row["slug"] == row["name"].replace(" ", "-")
        assert re.fullmatch(r"[0-9A-F]{4,5}", row["codepoint"])


def test_the_counts_per_split_and_style() -> None:
    assert {split: len(_of(split)) for split in ("train", "val", "test")} == {
        "train": 1327,
        "val": 181,
        "test": 524,
    }
    styles = Counter(image["style"] for image in IMAGES)
    assert styles.pop("fxemoji") == 198
    assert styles == {style["name"]: 262 for style in INDEX["styles"] if style["name"] != "fxemoji"}


def test_every_id_is_its_style_and_its_class() -> None:
    assert all(image["id"] == f"{image['style']}/{SLUGS[image['leaf']]}" for image in IMAGES)
    assert len({image["id"] for image in IMAGES}) == len(IMAGES)


def test_the_test_split_holds_two_artists_and_nothing_else_shows_them() -> None:
    assert {image["style"] for image in _of("test")} == HELD_OUT
    assert {style["name"] for style in INDEX["styles"] if style["split"] == "test"} == HELD_OUT
    assert not HELD_OUT & {image["style"] for split in ("train", "val") for image in _of(split)}
    assert set(Counter(image["leaf"] for image in _of("test")).values()) == {2}


def test_validation_takes_at_most_two_drawings_of_a_class_and_no_near_copies() -> None:
    assert not {image["id"] for image in _of("val")} & {image["id"] for image in _of("train")}
    assert max(Counter(image["leaf"] for image in _of("val")).values()) <= 2
    training = Counter(image["leaf"] for image in _of("train"))
    assert len(training) == 262
    assert min(training.values()) >= 4
    assert not any(image["style"].startswith("fluent") for image in _of("val"))


def test_the_archive_holds_exactly_the_listed_images(pictures: dict[str, bytes]) -> None:
    assert set(pictures) == {f"{image['id']}.webp" for image in IMAGES}


def test_every_image_is_a_drawing_on_a_transparent_square(pictures: dict[str, bytes]) -> None:
    for name, content in pictures.items():
        image = Image.open(io.BytesIO(content))
        assert (image.format, image.mode, image.size) == ("WEBP", "RGBA", (SIDE, SIDE)), name
        alpha = np.asarray(image)[..., 3]
        border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
        assert border.max() == 0, name
        assert 0.05 < (alpha > 127).mean() < 0.96, name
        assert np.asarray(image)[alpha > 127].max() > 0, name


def test_no_two_images_are_the_same(pictures: dict[str, bytes]) -> None:
    assert len(set(pictures.values())) == len(pictures)


def test_the_files_are_small(pictures: dict[str, bytes]) -> None:
    assert len(FOLDER.joinpath("images.zip").read_bytes()) <= 7_000_000
    assert len(FOLDER.joinpath("classes.json").read_bytes()) <= 250_000


def test_the_attribution_names_every_style_with_its_package_and_licence() -> None:
    lines = FOLDER.joinpath("ATTRIBUTION.md").read_text("utf-8").splitlines()
    for style in INDEX["styles"]:
        row = next(line for line in lines if line.startswith(f"| {style['name']} |"))
        for key in ("package", "version", "licence", "url"):
            assert style[key] in row


def _walk(children: Any) -> tuple[list[str], list[str]]:
    """The leaf names and the names of the internal nodes below, read without the package's own reader."""
    if isinstance(children, str):
        return [children], []
    named = list(children.items()) if isinstance(children, dict) else []
    below = [_walk(child) for _, child in named] or [_walk(child) for child in children]
    inner = [name for name, _ in named] + [name for _, names in below for name in names]
    return [leaf for leaves, _ in below for leaf in leaves], inner


@pytest.mark.parametrize("name", EMOJI_TREES)
def test_a_tree_covers_every_class_once_under_readable_names(name: str) -> None:
    content = json.loads(LIBRARY.joinpath("emoji", f"{name}.json").read_text("utf-8"))
    assert content["name"] == name
    assert content["about"].endswith(".")
    assert content["licence"]
    leaves, inner = _walk(content["tree"])
    assert sorted(leaves) == sorted(NAMES)
    assert len(inner) == len(set(inner))
    assert not set(inner) & set(NAMES)
    for node in inner:
        assert re.fullmatch(r"[a-z][a-z, -]*[a-z]", node)
        assert node not in {"whole", "artifact", "entity", "object", "thing"}


def test_the_trees_have_the_levels_they_were_made_for() -> None:
    forest = shipped_forest("emoji", NAMES)
    sizes = {tree.name: [len(set(level)) for level in tree.levels] for tree in forest.trees}
    assert sizes == {
        "unicode": [34, 5],
        "wordnet": [82, 32, 12],
        "place": [20, 6],
        "size": [5, 2],
        "words": [36, 8],
    }


def test_corrected_senses_of_the_wordnet_tree() -> None:
    forest = shipped_forest("emoji", NAMES, ("wordnet",))

    def above(leaf: str) -> set[str]:
        return {forest.names[node] for node in forest.ancestors("wordnet", NAMES.index(leaf))}

    assert {"sea mammal", "mammal", "animal"} <= above("dolphin")
    assert "hat or crown" in above("crown")
    assert "weather phenomenon" in above("rainbow")
    assert "hand tool" in above("pickaxe")
    assert above("dog") == above("poodle")
    assert above("taxi") == above("car")


def test_the_notices_of_the_sources_are_shipped() -> None:
    unicode_notice = LIBRARY.joinpath("UNICODE-LICENSE.txt").read_text("utf-8")
    assert "UNICODE LICENSE V3" in unicode_notice
    notice = LIBRARY.joinpath("WORDNET-LICENSE.txt").read_text("utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in notice
