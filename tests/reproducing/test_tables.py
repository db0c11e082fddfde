"""The rows of the tables: what was published about each, and with which options it is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustree.data import CATALOG
from robustree.methods import AGFT, Hierarchical
from robustree.reproducing import EMBEDDED, PAPER, SCALES, TABLES, Candidate
from robustree.training import recipe_record

ROOT = Path(__file__).parents[2]
PUBLISHED = {
    "main": {
        "CLIP": ([64.90], [7.21]),
        "TeCoA": ([52.62], [38.91]),
        "PMG-AFT": ([57.36], [39.72]),
        "FARE": ([59.67], [37.93]),
        "AoS": ([61.70], [43.88]),
        "AGFT": ([61.35], [46.57]),
        "HRFT, one tree": ([62.14], [44.34]),
        "HRFT, five trees": ([62.49], [45.39]),
    },
    "components": {
        "TeCoA": ([52.62], [38.91], [37.62]),
        "HITA": ([59.27], [42.08], [40.59]),
        "HITA + vic": ([62.35], [43.67], [42.18]),
        "HITA + gap": ([60.06], [43.15], [41.54]),
        "HITA + vic + gap": ([62.14], [44.34], [42.72]),
    },
    "perturbation": {
        "leaf": ([60.25], [41.59], [40.23]),
        "each level": ([61.37], [42.35], [40.88]),
        "universal": ([62.14], [44.34], [42.72]),
    },
    "negatives": {
        "own level only": ([], []),
        "and the level below": ([], [43.62, 43.83]),
        "and the level above": ([], [43.62, 43.83]),
        "both": ([62.14], [44.34]),
    },
}
"""Clean, PGD-20, AutoAttack, as the public summaries give them."""
OPTIONS = {
    "hita": {"vic": 0.0, "gap_label": 0.0, "gap_image": 0.0},
    "hita-vic": {"gap_label": 0.0, "gap_image": 0.0},
    "hita-gap": {"vic": 0.0},
    "hrft": {},
    "hrft-5-trees": {},
    "hrft-leaf": {"perturbation": "leaf"},
    "hrft-per-level": {"perturbation": "per_level"},
    "hrft-negatives-none": {"negatives": "none"},
    "hrft-negatives-lower": {"negatives": "lower"},
    "hrft-negatives-upper": {"negatives": "upper"},
}
"""What differs from the library's defaults, but for the parents, which the paper averages."""


def _candidates() -> list[Candidate]:
    return [candidate for table in TABLES.values() for candidate in table.candidates]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures_stand_in_their_rows(name: str) -> None:
    table = TABLES[name]
    titles = ["clean", *(PAPER.title(evaluation) for evaluation in table.evaluations)]
    found = {
        row.label: tuple([published.figures["average"] for published in row.figures(title)] for title in titles)
        for row in table.rows
    }
    assert found == PUBLISHED[name]


def test_every_table_has_its_name_and_says_what_is_not_known() -> None:
    assert list(TABLES) == ["main", "components", "perturbation", "negatives", "trees", "eps", "attacks", "backbones"]
    for name, table in TABLES.items():
        assert table.name == name
        assert table.unknown
        assert len({row.label for row in table.rows}) == len(table.rows)
    quoted = [row for table in TABLES.values() for row in table.rows if row.candidate is None]
    assert [(row.label, row.published) for row in quoted] == [("AoS", (("hrzs", "AoS"),))]


def test_a_name_is_one_model_in_all_tables() -> None:
    by_name = {candidate.name: candidate for candidate in _candidates()}
    assert all(by_name[candidate.name] == candidate for candidate in _candidates())


@pytest.mark.parametrize("name", OPTIONS)
def test_rows_of_the_method_differ_in_what_the_table_compares(name: str) -> None:
    (candidate,) = {candidate for candidate in _candidates() if candidate.name == name}
    assert candidate.method == Hierarchical(parents="recursive", **OPTIONS[name])
    assert candidate.trees == (5 if name == "hrft-5-trees" else 1)


@pytest.mark.parametrize("scale", SCALES.values(), ids=lambda scale: scale.name)
def test_rows_of_a_scale_have_one_budget(scale) -> None:
    for candidate in _candidates():
        recipe = scale.recipe(candidate)
        if candidate.method is None:
            assert recipe is None
            continue
        own = (recipe.steps, recipe.batch_size, recipe.threat, recipe.attack, recipe.seed, recipe.space)
        base = scale.base
        assert own == (base.steps, base.batch_size, base.threat, base.attack, base.seed, candidate.space)
    assert len(scale.trees) == 5
    for count in (1, 5):
        trees = scale.forest(Candidate(name="", trees=count)).trees
        assert [tree.name for tree in trees] == list(scale.trees[:count])


def test_the_paper_scale_has_the_published_settings() -> None:
    base = PAPER.base
    assert (base.threat.eps, base.attack.steps, base.attack.step_size) == (1 / 255, 3, 1.0)
    assert (base.steps, base.batch_size, round(base.warmup * base.steps)) == (10 * (1_281_167 // 256), 256, 1000)
    assert len(PAPER.data_sets) == 15
    (_, _, largest) = TABLES["eps"].evaluations
    assert PAPER.title(largest) == "PGD-20 at 4/255"
    assert all(len(PAPER.audited_forest(CATALOG[name], largest).cuts()) == 1 for name in PAPER.data_sets)


def test_the_embedded_scale_is_that_of_the_committed_ablation() -> None:
    """benchmarks/quickstart_ablation.py takes its recipes from here: its committed figures were made with these."""
    committed = json.loads((ROOT / "benchmarks" / "quickstart_ablation.json").read_text(encoding="utf-8"))
    by_method = {row["method"]: row["recipe"] for row in committed["rows"] if row["seed"] == 0}
    names = {"tecoa": "tecoa", "pmg-aft": "pmg_aft", "fare": "fare", "agft": "agft"}
    for candidate in TABLES["main"].candidates:
        if candidate.name in names:
            own, old = recipe_record(EMBEDDED.recipe(candidate)), by_method[names[candidate.name]]
            for name, value in old.items():
                known = {key: own[name][key] for key in value if key in own[name]} if name == "attack" else own[name]
                assert known == ({k: v for k, v in value.items() if k in own[name]} if name == "attack" else value)
    assert isinstance(EMBEDDED.recipe(TABLES["main"].rows[5].candidate).method, AGFT)
    assert EMBEDDED.images == committed["rows"][0]["images"]
    assert EMBEDDED.attacks["PGD-20"].attack.step_size == committed["rows"][0]["attack"]["step_size"]
