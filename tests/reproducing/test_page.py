"""A table as a page: published and own figures in blocks of their own, incomplete means marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robustree.data import CATALOG
from robustree.reproducing import PAPER, SCALES, TABLES
from robustree.reproducing.jobs import jobs_of
from robustree.reproducing.page import content_of, duration, markdown, published, shown
from robustree.reproducing.place import Place
from robustree.reproducing.results import figures, protocol, read_result, write_result
from robustree.taxonomy import TreeSource, build_forest

CELL = {"images": 4, "clean": {"value": 0.75, "low": 0.3, "high": 0.95}, "robust": {"value": 0.5}, "levels": None}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(scale=PAPER, directory=tmp_path, data_root=None)


def _measure(place: Place, name: str, data_set: str, clean: float, robust: float) -> None:
    table = TABLES["main"]
    (candidate,) = [c for c in table.candidates if c.name == name]
    (evaluation,) = table.evaluations
    own = CELL | {"clean": {"value": clean, "low": 0.1, "high": 0.9}, "robust": {"value": robust}}
    wanted = protocol(PAPER, candidate, evaluation, CATALOG[data_set])
    write_result(place.result(candidate, evaluation, data_set), wanted, own, 1.0)


def test_own_figures_are_means_over_the_sets_that_have_them(place: Place) -> None:
    _measure(place, "tecoa", "pets", 0.75, 0.5)
    content = content_of(TABLES["main"], place, jobs_of(TABLES["main"], place))
    row = next(row for row in content["rows"] if row["label"] == "TeCoA")
    assert [shown(cell) for cell in row["own"]] == ["75.0 [1 of 15 sets]", "50.0 [1 of 15 sets]"]
    assert row["state"].startswith("1 of 15 measured; lacks the model, the training images, 14 of 15 data sets")
    for data_set in PAPER.data_sets:
        _measure(place, "tecoa", data_set, 0.25 if data_set == "pets" else 0.75, 0.5)
    content = content_of(TABLES["main"], place, jobs_of(TABLES["main"], place))
    row = next(row for row in content["rows"] if row["label"] == "TeCoA")
    assert [shown(cell) for cell in row["own"]] == [f"{100 * (14 * 0.75 + 0.25) / 15:.1f}", "50.0"]
    assert row["state"] == "measured"


def test_the_page_keeps_published_and_own_apart(place: Place) -> None:
    _measure(place, "tecoa", "pets", 0.123, 0.5)
    page = markdown(content_of(TABLES["main"], place, jobs_of(TABLES["main"], place)))
    before, after = page.split("## Here, scale paper")
    assert "| TeCoA | 52.62 | 38.91 | [1] |" in before and "12.3" not in before
    assert "HR-ZS, clean: cifar10 87.13, pcam 51.69, caltech256 81.85, cars 48.23, aircraft 17.76 (" in before
    assert "12.3 (10.0 to 90.0)" in after and "38.91" not in after
    assert "| AoS | 61.70 | 43.88 | [1] | no code and too little text: quoted only |" in before
    assert "not published: curvature" in after


def test_figures_that_cannot_be_told_apart_are_both_shown(place: Place) -> None:
    content = content_of(TABLES["negatives"], place, jobs_of(TABLES["negatives"], place))
    assert [published(cell) for cell in content["rows"][1]["published"]] == ["–", "43.62 or 43.83"]


def test_a_result_of_another_protocol_is_refused(place: Place) -> None:
    _measure(place, "tecoa", "pets", 0.75, 0.5)
    table = TABLES["main"]
    wanted = protocol(PAPER, table.candidates[1], table.evaluations[0], CATALOG["pets"])
    path = place.result(table.candidates[1], table.evaluations[0], "pets")
    assert read_result(path, wanted) is not None
    with pytest.raises(ValueError, match="was measured with another seed"):
        read_result(path, wanted | {"seed": 1})
    path.write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        read_result(path, wanted)


def test_figures_of_rows() -> None:
    """Four images of one class: one wrong from the start, two that fall at the leaf, one that stands; groups stand."""
    forest = build_forest(("a", "b", "c", "d"), [TreeSource("t", {"one": ["a", "b"], "two": ["c", "d"]})])
    labels = [cut.label for cut in forest.cuts()]
    falls = {"0": ("", 1), "1": ("leaf", 0), "2": ("leaf", 0), "3": (None, 0)}

    def row(image: str, attack: str, attacked: str, leaf: int) -> dict[str, Any]:
        decided = {labels[0]: leaf, labels[1]: 0}
        base = {"image": image, "leaf": 0, "model": "m", "head": "cosine", "attack": attack, "attacked": attacked}
        return base | {"direct": decided, "summed": decided, "distance": 0.0, "valid": True}

    rows = [row(image, "clean", "", leaf) for image, (_, leaf) in falls.items()]
    for label in labels:
        for image, (where, leaf) in falls.items():
            rows.append(row(image, "pgd", label, 1 if where == label else leaf))
    found = figures([*rows, row("0", "clean", "", 0) | {"model": "other"}], forest, "m")
    assert (found["images"], found["clean"]["value"], found["robust"]["value"]) == (4, 0.75, 0.25)
    assert found["levels"] == {"clean": (0.75 + 1) / 2, "robust": (0.25 + 1) / 2}
    alone = build_forest(forest.leaves, [])
    rows = [row | {name: {"leaf": row[name]["leaf"]} for name in ("direct", "summed")} for row in rows]
    leaf_only = figures([row for row in rows if row["attacked"] in ("", "leaf")], alone, "m")
    assert leaf_only == found | {"levels": None}


def test_the_documentation_has_every_row_and_all_that_is_taken() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reproduce.md").read_text(encoding="utf-8")
    for scale in SCALES.values():
        assert scale.about in page
        assert all(f"- {line}\n" in page for line in scale.assumed)
    for table in TABLES.values():
        assert f"### {table.name}\n" in page
        assert all(f"- {line}\n" in page for line in table.unknown)
        titles = ["clean", *(PAPER.title(evaluation) for evaluation in table.evaluations)]
        for row in table.rows:
            cells = [published([found.figures["average"] for found in row.figures(title)]) for title in titles]
            model = f"`{row.candidate.name}`" if row.candidate else "quoted"
            assert f"| {row.label} | {model} | {' | '.join(cells)} |" in page


@pytest.mark.parametrize(("hours", "text"), [(5240.2, "5,240 h"), (0.5, "30 min"), (0.001, "4 s"), (0.0, "–")])
def test_durations(hours: float, text: str) -> None:
    assert duration(hours) == text
