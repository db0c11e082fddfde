"""Cascades, attacks beside each other, fragile images, curves and checks: counted by hand, and on the page."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from robustree.auditing.curve_file import level_curves
from robustree.auditing.metrics import figures
from robustree.auditing.report import charts
from robustree.auditing.report.curve_charts import HEIGHT, LINE, TOP, Line, draw_eps, draw_steps
from robustree.auditing.report.page import write_report
from robustree.taxonomy.forest import Forest
from tests.auditing.conftest import Row, write_audit
from tests.auditing.page import parsed
from tests.auditing.rich import CASCADE, GRIDS, STAGES, write_rich_audit

FEW: dict[str, Any] = {"resamples": 200, "seed": 1}
PARTS = ("curves", "breaking", "fragile", "checks")


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_rich_audit(tmp_path_factory.mktemp("rich") / "audit", images=66)
    write_report(folder)
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_rich_audit(tmp_path / "audit", images=44, gallery=False)


def _value(figure: dict[str, Any]) -> float:
    return figure["value"]


# ---- figures, counted by hand -------------------------------------------------------------------------------


def _cascade(tiny_rows: list[Row]) -> list[Row]:
    """A cascade on model a: like pgd-20, with the stages that broke images; at kind/1 it breaks image 1 too."""
    rows = []
    stages = {("leaf", "i1"): "first", ("leaf", "i2"): "third", ("kind/1", "i0"): "first"}
    for row in tiny_rows:
        if row["model"] == "a" and row["attack"] == "pgd-20":
            made = json.loads(json.dumps(row)) | {"attack": "auto"}
            if (row["attacked"], row["image"]) == ("kind/1", "i1"):
                made["direct"]["kind/1"] = 1
            stage = stages.get((row["attacked"], row["image"]))
            rows.append(made | ({"broken_by": stage} if stage else {}))
    return rows


def test_a_cascade_s_stages_add_up(tiny_rows: list[Row], tiny_forest: Forest) -> None:
    """a, clean: image 3 is wrong at the leaf, all are right at kind. auto at the leaf breaks 1 and 2; at kind it breaks
    0 (first stage), and 1 and 3 by no stage on record."""
    measured = figures(tiny_rows + _cascade(tiny_rows), tiny_forest, stages={"auto": ("first", "second")}, **FEW)
    first, second = measured["models"]
    assert second["cascades"] == {}
    found = first["cascades"]["auto"]
    assert found["stages"] == ["first", "second", "third"]
    counts = [
        [level["wrong"]["count"], *(f["count"] for f in level["broken"].values()), level["unnamed"]["count"],
         level["standing"]["count"]]
        for level in found["levels"]
    ]  # fmt: skip
    assert [level["attacked"] for level in found["levels"]] == ["leaf", "kind/1"]
    assert counts == [[1, 1, 0, 1, 0, 1], [0, 1, 0, 0, 2, 1]]
    assert first["transfer"]["auto"]["attacked"] == ["leaf", "kind/1"]
    assert [[cell["count"] for cell in line] for line in first["transfer"]["auto"]["success"]] == [[2, 0], [0, 3]]


def test_a_cascade_that_breaks_nothing_is_known_from_the_header(tiny_rows: list[Row], tiny_forest: Forest) -> None:
    rows = [row | ({"attack": "auto"} if row["attack"] != "clean" else {}) for row in tiny_rows if row["model"] == "b"]
    rows = [row for row in rows if row["attacked"] != "leaf"]
    found = figures(rows, tiny_forest, stages={"auto": ("one",)}, **FEW)["models"][0]["cascades"]["auto"]
    assert found["levels"][0]["broken"]["one"]["count"] == 0 and found["levels"][0]["standing"]["count"] == 4
    assert figures(rows, tiny_forest, **FEW)["models"][0]["cascades"] == {}


def test_an_attack_is_credited_with_what_it_alone_breaks(tiny_rows: list[Row], tiny_forest: Forest) -> None:
    """At kind: pgd-20 breaks 0 and 3, auto 0, 1 and 3."""
    first, second = figures(tiny_rows + _cascade(tiny_rows), tiny_forest, **FEW)["models"]
    assert second["beside"] == []
    leaf, kind = first["beside"]
    assert leaf["attacked"] == "leaf" and kind["attacked"] == "kind/1"
    assert {name: (entry["robust"]["count"], entry["only"]["count"]) for name, entry in kind["attacks"].items()} == {
        "pgd-20": (2, 0),
        "auto": (1, 1),
    }
    assert kind["together"]["count"] == 1
    assert [entry["only"]["count"] for entry in leaf["attacks"].values()] == [0, 0]


def test_images_that_fall_most_easily(tiny_rows: list[Row], tiny_forest: Forest) -> None:
    """Broken decisions of a: 0 at kind, 1 and 2 at the leaf, 3 at kind; of b: 3 at the leaf. Image 3 loses most."""
    found = figures(tiny_rows, tiny_forest, **FEW)["fragile"]
    assert found["decisions"] == 4 and found["tied"] == 1
    assert [(entry["image"], entry["shows"], entry["broken"]) for entry in found["images"]] == [
        ("i3", "kiwi", 2),
        ("i0", "dog", 1),
        ("i1", "cat", 1),
        ("i2", "pear", 1),
    ]
    assert {entry["eps"] for entry in found["images"]} == {None}
    kiwi = found["images"][0]["taken_for"]
    assert kiwi == {"leaf": [{"name": "dog", "count": 1}], "kind/1": [{"name": "mammal", "count": 1}]}
    clean = [row for row in tiny_rows if row["attack"] == "clean"]
    assert figures(clean, tiny_forest, **FEW)["fragile"] is None


def test_equals_are_ordered_by_the_eps_at_which_they_fall(tiny_rows: list[Row], tiny_forest: Forest) -> None:
    grids = {"eps": [0.0, 0.1, 0.2], "steps": [1]}
    eps = {"leaf": [0.1, None, 0.2, 0.2], "kind/1": [0.2, None, 0.1, 0.0]}
    fell = {label: {"eps": at, "steps": [1, 1, 1, 1]} for label, at in eps.items()}
    entry = {"model": "a", "head": "cosine", "fell": fell} | level_curves(fell, grids)
    # In the curves' own order of images: i2 falls at 0.1 and 0.2, i1 stands, i0 at 0.2 and 0.1 (a tie with i2).
    curves = {"protocol": grids, "images": ["i2", "i1", "i0", "i3"], "subjects": [entry]}
    found = figures(tiny_rows, tiny_forest, curves=curves, **FEW)["fragile"]["images"]
    assert [(e["image"], e["eps"]) for e in found] == [("i3", 0.2), ("i0", 0.1), ("i2", 0.1), ("i1", None)]


# ---- charts -------------------------------------------------------------------------------------------------


def _points(values: list[float], axis: str, grid: list[float]) -> list[dict[str, float]]:
    return [{axis: x, "value": v, "low": v - 0.05, "high": v + 0.05} for x, v in zip(grid, values, strict=True)]


def test_a_chart_draws_what_was_measured() -> None:
    lines = [Line("a", 0, _points([0.9, 0.5, 0.1], "eps", [0, 4 / 255, 8 / 255]))]
    drawn = draw_eps("leaf", lines, norm="linf", audited=4 / 255, chance=0.25)
    parsed(drawn)
    assert re.search(r'<polyline class="s0" points="([^"]*)"', drawn)[1] == "0.00,10.00 50.00,50.00 100.00,90.00"  # type: ignore[index]
    band = re.search(r'<polygon class="band s0" points="([^"]*)"', drawn)[1]  # type: ignore[index]
    assert band.split()[0] == "0.00,5.00" and band.split()[-1] == "0.00,15.00" and len(band.split()) == 6
    assert 'class="audited" x1="50.00%"' in drawn and ">ε in 1/255</text>" in drawn
    assert [int(t) for t in re.findall(r'text-anchor="middle">(\d+)<', drawn)] == [0, 4, 8]
    assert "a 90\N{NO-BREAK SPACE}% to 10\N{NO-BREAK SPACE}%" in drawn
    lines = [Line("b", 9, _points([0.8, 0.7, 0.6], "steps", [1, 10, 100]))]
    drawn = draw_steps("leaf", lines, chance=None)
    assert 'class="s1" points="0.00,20.00 50.00,30.00 100.00,40.00"' in drawn and "chance" not in drawn
    assert "audited" not in draw_eps("l", lines=[Line("a", 0, _points([1, 0], "eps", [0, 1]))], norm="l2", audited=2.0,
                                     chance=None)  # fmt: skip


@pytest.mark.parametrize("count", [1, 4, 9, 14])
def test_names_keep_apart_and_inside(count: int) -> None:
    lines = [Line(f"model {k} (cosine)", k, _points([0.5, 0.02], "eps", [0, 1])) for k in range(count)]
    drawn = draw_eps("leaf", lines, norm="l2", audited=1.0, chance=None)
    places = [float(y) for y in re.findall(r'<text class="name s\d" x="14" y="([\d.]+)"', drawn)]
    assert len(places) == count and places == sorted(places)
    gaps = [b - a for a, b in itertools.pairwise(places)]
    assert all(gap >= min(2 * LINE, (HEIGHT - TOP) / count - 2) - 0.2 for gap in gaps)
    assert min(places) > 0 and max(places) + LINE < HEIGHT


def test_a_bar_s_parts_fill_it() -> None:
    shares = {"standing": 40, "wrong": 10, "unnamed": 0}
    level = {name: {"value": n / 100, "count": n, "n": 100} for name, n in shares.items()}
    broken = {"one": 30, "two": 18, "three": 2}
    level["broken"] = {name: {"value": n / 100, "count": n, "n": 100} for name, n in broken.items()}
    drawn = charts.fates(level, "a <b>")
    parsed(drawn)
    rects = [(float(x), float(w)) for x, w in re.findall(r'<rect x="([\d.]+)%" width="([\d.]+)%"', drawn)]
    assert rects == [(0, 40), (40, 2), (42, 18), (60, 30), (90, 10)]
    assert re.findall(r">(\d+)</text>", drawn) == ["40", "18", "30", "10"]
    assert "a &lt;b&gt;: standing 40.0\N{NO-BREAK SPACE}%, by three 2.0" in drawn and "none on record" not in drawn


# ---- the page -----------------------------------------------------------------------------------------------


def test_the_page_shows_every_part(rich: Path) -> None:
    text = (rich / "report.html").read_text(encoding="utf-8")
    page = parsed(text)
    ids = {attributes.get("id") for _, attributes in page.seen}
    assert ids >= set(PARTS)
    for part in PARTS:
        assert f'href="#{part}"' in text
    measured = json.loads((rich / "figures.json").read_text(encoding="utf-8"))
    assert text.count('<div class="lines"') == 2 * 4  # leaf, mean of superclasses, the coarsest level of each tree
    assert text.count('class="fates"') == 4 * 5
    for subject in measured["models"]:
        for level in subject["cascades"][CASCADE]["levels"]:
            assert list(level["broken"]) == list(STAGES)
            kinds = [level["wrong"], level["unnamed"], level["standing"], *level["broken"].values()]
            assert sum(kind["count"] for kind in kinds) == 66
        for level in subject["beside"]:
            assert charts.percent(level["together"]["value"]) in text
    for subject in measured["curves"]["subjects"]:
        for curve in subject["levels"].values():
            assert all(charts.percent(point["value"]) in text for point in curve["eps"] + curve["steps"])
    assert len(measured["fragile"]["images"]) == 12 and len(measured["checks"]) == 49
    assert "1 of 49 checks failed, 2 ask for a look" in text and text.index("1 of 49") < text.index("<nav")
    assert "9 images stand at 8/255" in text
    pictured = re.findall(r'<td class="thumb"><img src="data:image/png;base64,[^"]+" alt="([^"]+)"', text)
    assert pictured and set(pictured) <= {"twemoji/000", "twemoji/010", "twemoji/007", "twemoji/004"}
    for name in ("report.html", "report.md"):
        assert f"robustree report {rich}" in (rich / name).read_text(encoding="utf-8")


def test_every_attack_has_its_transfer_matrix(rich: Path) -> None:
    text = (rich / "report.html").read_text(encoding="utf-8")
    section = text[text.index('id="transfer"') : text.index('id="breaking"')]
    levels = ["leaf", "unicode/1", "unicode/2", "places/1", "places/2"]
    for attack, aims in (("pgd-20", [*levels, "all"]), ("square-500", ["leaf"]), (CASCADE, levels)):
        for aim in aims:
            assert section.count(f'<th scope="row">{attack}<br><b>{aim}</b></th>') == 4, (attack, aim)
    notes = (rich / "report.md").read_text(encoding="utf-8")
    assert f"> {CASCADE} leaves an image at the first success: transfer to other levels is that of a barely" in notes


def test_the_strongest_meets_every_other_model(rich: Path) -> None:
    measured = json.loads((rich / "figures.json").read_text(encoding="utf-8"))
    best = measured["headline"]["strongest"]
    subjects = {(s["model"], s["head"]) for s in measured["models"]}
    pairs = measured["comparisons"]
    assert {(p["a"]["model"], p["a"]["head"]) for p in pairs} == {(best["model"], best["head"])}
    assert {(p["b"]["model"], p["b"]["head"]) for p in pairs} == subjects - {(best["model"], best["head"])}
    text = (rich / "report.html").read_text(encoding="utf-8")
    section = text[text.index('id="pairs"') : text.index('id="margin"')]
    assert section.count("hrft (hyperbolic) − ") == 3


def test_markdown_tables_are_rectangular(rich: Path) -> None:
    text = (rich / "report.md").read_text(encoding="utf-8")
    blocks = text.split("\n\n")
    tables = [block.strip().splitlines() for block in blocks if block.lstrip().startswith("|")]
    assert len(tables) == 13
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1, table[0]
        assert set(table[1]) <= set("|-") and len(table) > 2
    for title in ("How far the budget reaches", "Which attack broke which image", "Images that fall", "Checks"):
        assert f"\n\n## {title}" in text


def test_a_page_without_the_parts(tmp_path: Path) -> None:
    folder = write_audit(tmp_path / "audit", gallery=False, images=22)
    path = folder / "rows.jsonl"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(True) if '"square-500"' not in line]
    path.write_text("".join(lines), encoding="utf-8")
    write_report(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    parsed(text)
    for part in ("curves", "breaking", "checks"):
        assert f'id="{part}"' not in text and f"#{part}" not in text
    assert 'class="thumb"' not in text and 'class="alert"' not in text
    measured = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    assert measured["curves"] is None and measured["checks"] is None
    assert all(subject["cascades"] == {} and subject["beside"] == [] for subject in measured["models"])


def test_checks_that_found_nothing_say_so_in_a_line(small: Path) -> None:
    path = small / "checks.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for check in content["checks"]:
        check["status"] = "pass"
    path.write_text(json.dumps(content), encoding="utf-8")
    write_report(small)
    text = (small / "report.html").read_text(encoding="utf-8")
    assert '<a href="#checks">No check found anything (49 passed).</a>' in text and 'class="alert"' not in text
    assert "**Checks:** none found anything (49 passed)." in (small / "report.md").read_text(encoding="utf-8")


def test_curves_of_some_models_and_of_unknown_ones(small: Path) -> None:
    path = small / "curves.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    kept = content["subjects"][1]
    content["subjects"] = [content["subjects"][0] | {"model": "gone"}, kept]
    path.write_text(json.dumps(content), encoding="utf-8")
    write_report(small)
    text = (small / "report.html").read_text(encoding="utf-8")
    drawn = text[text.index('id="curves"') : text.index('id="transfer"')]
    assert "tecoa" in drawn and "gone" not in drawn and drawn.count("<polyline") == 8
    assert 'class="s1" points="' in drawn  # tecoa's colour on the whole page
    content["subjects"] = content["subjects"][:1]
    path.write_text(json.dumps(content), encoding="utf-8")
    write_report(small)
    assert 'id="curves"' not in (small / "report.html").read_text(encoding="utf-8")


def test_the_reading_of_the_curves(small: Path) -> None:
    path = small / "curves.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    subject = content["subjects"][1]
    subject["fell"]["leaf"]["steps"][0] = 99
    subject |= level_curves(subject["fell"], GRIDS)
    content["subjects"] = [subject]
    path.write_text(json.dumps(content), encoding="utf-8")
    write_report(small)
    text = (small / "report.md").read_text(encoding="utf-8")
    assert "Going from 40 to 100 steps takes at most 2.5 points more (tecoa at leaf)." in text
    value = charts.percent(subject["means"]["levels"]["eps"][-1]["value"])
    assert f"At ε = 8/255, the largest, tecoa keeps most: {value} of its decisions, averaged over levels." in text


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("curves.json", {"protocol": {"forest": "abc", **GRIDS}}, "was measured over forest abc, but forest.json is"),
        ("curves.json", {"format": "robustree-curves/0"}, "is damaged"),
        ("checks.json", {"format": "robustree-checks/0"}, "run the audit's checks again"),
        ("checks.json", {"checks": [{"id": "S99"}]}, "run the audit's checks again"),
    ],
)
def test_refused_parts(small: Path, name: str, change: dict[str, Any], message: str) -> None:
    path = small / name
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        write_report(small)
    assert not (small / "report.html").exists()
