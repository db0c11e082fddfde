"""The report folder: self-contained, reproducible, escaped, atomic, and saying what the figures say."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustree.auditing.report import charts, margin_curve
from robustree.auditing.report.gallery import read_gallery
from robustree.auditing.report.page import budget, draw_transfer, write_report
from robustree.taxonomy.files import forest_from_json
from tests.auditing.page import parsed

Writer = Callable[..., Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, audit_folder: Writer) -> Path:
    folder = audit_folder(tmp_path_factory.mktemp("audit") / "one", images=66)
    write_report(folder)
    return folder


def test_page_is_well_formed_and_refers_to_nothing_outside(made: Path) -> None:
    text = (made / "report.html").read_text(encoding="utf-8")
    page = parsed(text)
    ids = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.seen:
        for name in ("src", "href"):
            link = attributes.get(name)
            if link is not None:
                assert link.startswith(("data:", "#")), f"{tag} refers to {link}"
                assert not link.startswith("#") or link[1:] in ids
        if tag == "img":
            assert attributes["alt"] and attributes["src"].startswith("data:image/png;base64,")
        if tag == "svg" and attributes.get("aria-hidden") != "true":
            assert attributes["role"] == "img"
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|<iframe", text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_the_transfer_matrices_alone_are_those_of_the_page(made: Path, tmp_path: Path) -> None:
    alone = draw_transfer(made)
    assert alone.startswith('<section id="transfer">')
    assert alone.strip() in (made / "report.html").read_text(encoding="utf-8")
    (tmp_path / "figures.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no figures: write it again with robustree report"):
        draw_transfer(tmp_path)


def test_page_shows_the_figures(made: Path) -> None:
    measured = json.loads((made / "figures.json").read_text(encoding="utf-8"))
    pages = [(made / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")]
    assert measured["audit"]["command"].startswith("robustree audit")
    best = measured["headline"]["strongest"]
    assert (best["model"], best["head"]) == ("hrft", "hyperbolic")
    for text in pages:
        assert "hrft (hyperbolic), the most robust, loses" in text
        assert charts.percent(measured["headline"]["breaks_most"]["lost_superclasses"]["value"]) in text
        assert measured["rows_sha256"] in text and measured["forest"] in text
        for subject in measured["models"]:
            assert charts.percent(subject["any_level"]["levels"]["worst"]["value"]) in text
            for level in subject["cuts"]:
                assert charts.percent(level["readouts"]["direct"]["worst"]["value"]) in text
    assert pages[0].count('class="map"') == 8 and pages[0].count('class="exhibit"') == 4
    assert pages[0].count('class="dumbbell"') == 4 * 6
    assert "ε\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}4/255" in pages[0]
    assert "✗" in pages[0] and 'aria-label="wrong"' in pages[0]


def test_markdown_tables_are_rectangular(made: Path) -> None:
    blocks = (made / "report.md").read_text(encoding="utf-8").split("\n\n")
    tables = [block.strip().splitlines() for block in blocks if block.lstrip().startswith("|")]
    assert len(tables) == 10
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
        assert set(table[1]) <= set("|-") and len(table) > 2


def test_same_input_gives_the_same_bytes_and_no_leftovers(made: Path) -> None:
    names = ("report.html", "report.md", "figures.json")
    before = {name: (made / name).read_bytes() for name in names}
    listing = sorted(path.name for path in made.iterdir())
    write_report(str(made))
    assert {name: (made / name).read_bytes() for name in names} == before
    assert sorted(path.name for path in made.iterdir()) == listing


def test_an_interrupted_write_keeps_the_old_page(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (made / "report.html").read_bytes()
    listing = sorted(path.name for path in made.iterdir())

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(made)
    assert (made / "report.html").read_bytes() == before
    assert sorted(path.name for path in made.iterdir()) == listing


def test_hostile_names_stay_text(audit_folder: Writer, tmp_path: Path) -> None:
    folder = audit_folder(tmp_path / "audit", images=22)
    nasty = "<script>alert(1)</script>|x"
    for name in ("rows.jsonl", "audit.json", "gallery.json"):
        path = folder / name
        path.write_text(path.read_text(encoding="utf-8").replace('"tecoa"', json.dumps(nasty)), encoding="utf-8")
    write_report(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert [tag for tag, _ in parsed(text).seen].count("script") == 1
    assert "</script>\\|x" in (folder / "report.md").read_text(encoding="utf-8")


def test_without_gallery_and_without_attacks(audit_folder: Writer, tmp_path: Path) -> None:
    folder = audit_folder(tmp_path / "audit", gallery=False, images=22)
    path = folder / "rows.jsonl"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(True) if '"attack": "clean"' in line]
    path.write_text("".join(lines), encoding="utf-8")
    write_report(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    parsed(text)
    assert "clean predictions only" in text and 'id="gallery"' not in text and 'id="trees"' not in text


def test_notes_name_what_was_not_attacked_and_what_was_invalid(audit_folder: Writer, tmp_path: Path) -> None:
    folder = audit_folder(tmp_path / "audit", gallery=False, images=22)
    path = folder / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["attacked"] != "places/2"]
    next(row for row in rows if row["attacked"] == "leaf")["valid"] = False
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_report(folder)
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "no attack was aimed at places/2" in text
        assert "1 of 22 adversarial images of pgd-20 at leaf left the threat (twemoji/000)" in text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", None, "holds no rows.jsonl"),
        ("rows.jsonl", '{"image": "a"}\n', "line 1 of"),
        ("rows.jsonl", '{"image":"a","model":"b","head":"c","attack":"clean","attacked":""}', "Row 1 has no 'leaf'"),
        (
            "rows.jsonl",
            '{"image":"a","model":"b","head":"c","attack":"clean","attacked":1}',
            "its attacked is 1, no text",
        ),
        ("rows.jsonl", "", "no rows"),
        ("audit.json", "{", "is no JSON"),
        ("audit.json", "[]", "holds no JSON object"),
        ("audit.json", '{"forest": "abc"}', "written for forest abc"),
        ("gallery.json", '[{"image": "a"}]', "has no 'model'"),
    ],
)
def test_refused_folders(name: str, content: str | None, message: str, audit_folder: Writer, tmp_path: Path) -> None:
    folder = audit_folder(tmp_path / "audit", gallery=False, images=22)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        write_report(folder)
    assert str(caught.value).endswith(".")
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clean_png": "../audit.json"}, "holds no such file"),
        ({"clean_png": "missing.png"}, "holds no such file"),
        ({"clean_png": "text.png"}, "no PNG file"),
        ({"truth": {"unicode": ["dog"], "places": ["dog"]}}, "names 1 nodes, but the tree has 3 levels"),
        (
            {"truth": {"unicode": ["dog", "wolf", "animal"], "places": ["dog", "farm", "outdoors"]}},
            "'wolf' at level 1",
        ),
    ],
)
def test_refused_galleries(change: dict[str, Any], message: str, audit_folder: Writer, tmp_path: Path) -> None:
    folder = audit_folder(tmp_path / "audit", images=22)
    (folder / "gallery" / "text.png").write_text("no picture", encoding="utf-8")
    entries = json.loads((folder / "gallery.json").read_text(encoding="utf-8"))
    entries[0] |= change
    (folder / "gallery.json").write_text(json.dumps(entries), encoding="utf-8")
    forest = forest_from_json(json.loads((folder / "forest.json").read_text(encoding="utf-8")))
    with pytest.raises(ValueError, match=message):
        read_gallery(folder, forest)


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (4 / 255, "4/255"),
        (1 / 255, "1/255"),
        (0.5 / 255, "0.5/255"),
        (0.3, "0.3"),
        (0.0, "0"),
        (0.0157, "0.0157"),
    ],
)
def test_budget_is_written_as_people_write_it(eps: float, text: str) -> None:
    assert budget(eps) == text


def test_colours_fall_in_lightness_and_their_text_is_readable() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    found = [charts.broken_colour(k / 100) for k in range(101)]
    shades = [luminance(colour) for colour, _ in found]
    assert all(a > b for a, b in itertools.pairwise(shades))
    for shade, (_, ink) in zip(shades, found, strict=True):
        low, high = sorted((shade, luminance(ink)))
        assert (high + 0.05) / (low + 0.05) >= 4.3


def test_margins_are_theorem_one() -> None:
    # two classes at -eta and eta on one line, the image at eta: lambda (d(x, -x) - d(x, x)) = lambda d(x, -x)
    for eta in (0.1, 0.5, 0.9, 0.99):
        distance = 2 * math.atanh(2 * eta / (1 + eta * eta))
        assert margin_curve.ball_margin(eta) == pytest.approx(distance)
        assert margin_curve.dot_margin(eta) == pytest.approx(eta * eta - eta * -eta)
    for picture in (margin_curve.draw_margin_in_ball(), margin_curve.draw_margin_in_tangent_space()):
        parsed(picture)


def test_no_torch_is_imported() -> None:
    script = "import sys\nimport robustree.auditing.report\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
