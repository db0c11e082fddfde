"""Figures against hand-counted truths, an independent recomputation, and refused rows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from robustree.auditing.hierarchy import families
from robustree.auditing.metrics import compare, figures
from robustree.auditing.statistics import wilson
from robustree.taxonomy.forest import Forest

Row = dict[str, Any]
FEW = {"resamples": 200, "seed": 1}


def _value(figure: dict[str, Any] | None) -> float | None:
    return None if figure is None else figure["value"]


# ---- the tiny audit, counted by hand ------------------------------------------------------------------------


def test_tiny_accuracies(tiny_rows: list[Row], tiny_forest: Forest) -> None:
    measured = figures(tiny_rows, tiny_forest, **FEW)
    assert [(cut["label"], cut["n"], cut["nodes"], cut["chance"]) for cut in measured["cuts"]] == [
        ("leaf", 4, 4, 0.25),
        ("kind/1", 4, 2, 0.5),
    ]
    leaf, kind = (cut["readouts"] for cut in measured["models"][0]["cuts"])
    # a: clean leaves 0 1 2 2, so three right; the leaf attack leaves only image 0, the kind attack keeps three
    assert leaf["direct"]["clean"] == {
        "value": 0.75,
        "count": 3,
        "n": 4,
        "low": wilson(3, 4)[0],
        "high": wilson(3, 4)[1],
    }
    assert _value(leaf["direct"]["aimed"]["pgd-20"]) == 0.25
    assert _value(leaf["direct"]["worst"]) == 0.25
    # kind, direct: all right; under its own attack images 0 and 3 turn, under the leaf attack none
    assert _value(kind["direct"]["clean"]) == 1.0
    assert _value(kind["direct"]["aimed"]["pgd-20"]) == _value(kind["direct"]["worst"]) == 0.5
    # kind by way of the leaf: clean all right (kiwi read as pear); the leaf attack turns image 2 into a dog
    assert _value(kind["via_leaf"]["clean"]) == 1.0
    assert kind["via_leaf"]["aimed"] == {"pgd-20": None} and kind["via_leaf"]["aimed_worst"] is None
    assert _value(kind["via_leaf"]["worst"]) == 0.75
    # kind by summed leaves: image 3 is wrong on clean, so its recovery under the leaf attack does not count
    assert _value(kind["summed"]["clean"]) == _value(kind["summed"]["worst"]) == 0.75
    assert leaf["direct"]["all"] == {"pgd-20": None}


def test_tiny_any_level_transfer_and_means(tiny_rows: list[Row], tiny_forest: Forest) -> None:
    first, second = figures(tiny_rows, tiny_forest, **FEW)["models"]
    # a: image 0 falls at kind, 1 and 2 at the leaf, 3 is wrong on clean
    assert _value(first["any_level"]["levels"]["clean"]) == 0.75
    assert _value(first["any_level"]["levels"]["worst"]) == 0.0
    assert _value(second["any_level"]["trees"]["kind"]["worst"]) == 0.75
    assert first["any_level"]["levels"]["unattacked"] == []
    transfer = first["transfer"]["pgd-20"]
    assert (transfer["attacked"], transfer["evaluated"]) == (["leaf", "kind/1"], ["leaf", "kind/1"])
    counts = [[(cell["count"], cell["n"]) for cell in line] for line in transfer["success"]]
    assert counts == [[(2, 3), (0, 4)], [(0, 3), (2, 4)]]
    levels = first["means"]["direct"]["levels"]
    assert _value(levels["clean"]) == pytest.approx((0.75 + 1) / 2)
    assert _value(levels["aimed"]["pgd-20"]) == pytest.approx((0.25 + 0.5) / 2)
    assert _value(levels["worst"]) == pytest.approx(0.375)
    assert _value(levels["lost"]) == pytest.approx(1 - 0.375 / 0.875)
    assert _value(first["means"]["direct"]["superclasses"]["worst"]) == 0.5
    assert first["means"]["via_leaf"]["levels"]["aimed"] == {"pgd-20": None}
    assert [cut["overlooked"]["count"] for cut in first["cuts"]] == [0, 0]


def test_tiny_hierarchy(tiny_rows: list[Row], tiny_forest: Forest) -> None:
    found = figures(tiny_rows, tiny_forest, **FEW)["models"][0]["hierarchy"]["kind"]
    clean, attacked = found["clean"], found["leaf"]["pgd-20"]
    # clean: kiwi read as pear, a sibling: height 1, two edges, families {kiwi, fruit} and {pear, fruit}
    assert _value(clean["severity_mistakes"]) == 1 and _value(clean["severity_all"]) == 0.25
    assert _value(clean["tree_induced_error"]) == 0.5
    assert _value(clean["precision"]) == _value(clean["recall"]) == _value(clean["f1"]) == 7 / 8
    assert _value(clean["consistency"]) == 1.0
    # leaf attack: cat -> dog (height 1, 2 edges), pear -> dog (height 2, 4 edges); pear keeps its direct fruit
    assert _value(attacked["severity_mistakes"]) == 1.5 and _value(attacked["severity_all"]) == 0.75
    assert _value(attacked["tree_induced_error"]) == 1.5
    assert _value(attacked["f1"]) == (2 + 1 + 0 + 2) / 8
    assert _value(attacked["consistency"]) == 0.75
    perfect = figures(tiny_rows, tiny_forest, **FEW)["models"][1]["hierarchy"]["kind"]["clean"]
    assert perfect["severity_mistakes"] is None and _value(perfect["severity_all"]) == 0
    assert _value(perfect["f1"]) == 1


def test_a_single_top_is_the_root_and_is_left_out(tiny_forest: Forest) -> None:
    assert [len(family) for family in families(tiny_forest, "kind")] == [2, 2, 2, 2]
    names = tiny_forest.names
    parents = (*tiny_forest.tree("kind").parents[:4], 6, 6, -1)
    rooted = Forest((*names, "thing"), 4, (type(tiny_forest.trees[0])("kind", parents, tiny_forest.trees[0].levels),))
    assert families(rooted, "kind") == families(tiny_forest, "kind")


def test_tiny_compare(tiny_rows: list[Row], tiny_forest: Forest) -> None:
    found = compare(tiny_rows, tiny_forest, "b", "cosine", "a", "cosine", **FEW)
    # b keeps 3 of 4 at the leaf and 3 of 4 at kind (image 3 turns under no attack at kind: all 4)
    assert [(cut["only_a"], cut["only_b"]) for cut in found["cuts"]] == [(2, 0), (2, 0)]
    assert [cut["p"] for cut in found["cuts"]] == [0.5, 0.5] and [cut["p_holm"] for cut in found["cuts"]] == [
        1,
        1,
    ]
    assert found["difference"]["value"] == pytest.approx(0.5)
    assert found["clean_difference"]["value"] == pytest.approx(0.125)
    assert found["attacks"] == ["pgd-20 at leaf", "pgd-20 at kind/1"] and found["left_out"] == []
    turned = compare(tiny_rows, tiny_forest, "a", "cosine", "b", "cosine", **FEW)
    assert turned["difference"]["low"] == pytest.approx(-found["difference"]["high"])


def test_compare_uses_only_attacks_that_both_met(tiny_rows: list[Row], tiny_forest: Forest) -> None:
    fewer = [row for row in tiny_rows if (row["model"], row["attacked"]) != ("b", "kind/1")]
    found = compare(fewer, tiny_forest, "a", "cosine", "b", "cosine", **FEW)
    assert found["attacks"] == ["pgd-20 at leaf"] and found["left_out"] == ["pgd-20 at kind/1"]
    assert found["cuts"][1]["a"]["value"] == 1.0
    none = [row for row in tiny_rows if row["model"] == "a" or row["attack"] == "clean"]
    with pytest.raises(ValueError, match="share no attack"):
        compare(none, tiny_forest, "a", "cosine", "b", "cosine", **FEW)
    assert figures(none, tiny_forest, **FEW)["comparisons"] == []


def test_clean_rows_alone_give_no_robust_figure(tiny_rows: list[Row], tiny_forest: Forest) -> None:
    measured = figures([row for row in tiny_rows if row["attack"] == "clean"], tiny_forest, **FEW)
    first = measured["models"][0]
    assert all(level["readouts"]["direct"]["worst"] is None for level in first["cuts"])
    assert first["any_level"]["levels"]["worst"] is None and first["transfer"] == {}
    assert first["means"]["direct"]["levels"]["lost"] is None
    assert set(measured["headline"].values()) == {None}


def test_an_invalid_adversarial_image_counts_as_a_failed_attack(tiny_rows: list[Row], tiny_forest: Forest) -> None:
    rows = [dict(row) for row in tiny_rows]
    broken = next(row for row in rows if (row["model"], row["attacked"], row["leaf"]) == ("a", "leaf", 1))
    broken["valid"] = False
    first = figures(rows, tiny_forest, **FEW)["models"][0]
    assert first["cuts"][0]["readouts"]["direct"]["worst"]["count"] == 2
    assert first["attacks"][0]["invalid"] == ["i1"]


def test_spearman_is_passed_through(tiny_rows: list[Row], tiny_forest: Forest) -> None:
    measured = figures(tiny_rows, tiny_forest, spearman={"a/cosine": -0.8}, **FEW)
    assert [subject["spearman"] for subject in measured["models"]] == [-0.8, None]
    with pytest.raises(ValueError, match="c/cosine"):
        figures(tiny_rows, tiny_forest, spearman={"c/cosine": 0.1}, **FEW)


# ---- the synthetic audit --------------------------------------------------------------------------------


def test_figures_are_json_seeded_and_free_of_row_order(rows: list[Row], forest: Forest) -> None:
    few = [row for row in rows if row["model"] == "hrft" and row["head"] == "cosine"]
    shuffled = list(few)
    random.Random(0).shuffle(shuffled)
    shuffled.sort(key=lambda row: (row["attack"] != "clean", row["attack"]))
    one = json.dumps(figures(few, forest, **FEW), allow_nan=False, sort_keys=True)
    assert one == json.dumps(figures(shuffled, forest, **FEW), allow_nan=False, sort_keys=True)


def test_against_a_brute_force_recomputation(rows: list[Row], forest: Forest) -> None:
    measured = figures(rows, forest, **FEW)
    assert [(m["model"], m["head"]) for m in measured["models"]] == list(
        dict.fromkeys((row["model"], row["head"]) for row in rows)
    )

    def said(row: Row, readout: str, label: str) -> int:
        if readout == "via_leaf":
            return forest.find_cut(label).of_leaf[row["direct"]["leaf"]]
        return row[readout][label]

    for subject in measured["models"]:
        own = [row for row in rows if (row["model"], row["head"]) == (subject["model"], subject["head"])]
        images = sorted({row["image"] for row in own})
        per_image = {image: [row for row in own if row["image"] == image] for image in images}
        survive_all = dict.fromkeys(images, True)
        for level in subject["cuts"]:
            label = level["cut"]
            of_leaf = forest.find_cut(label).of_leaf
            for readout, found in level["readouts"].items():
                aim = label if readout == "direct" or label == "leaf" else f"{label}:{readout}"
                counts = {"clean": 0, "aimed": 0, "all": 0, "worst": 0}
                for image, passes in per_image.items():
                    right = {
                        (row["attack"], row["attacked"]): said(row, readout, label) == of_leaf[row["leaf"]]
                        for row in passes
                    }
                    clean = right["clean", ""]
                    counts["clean"] += clean
                    counts["aimed"] += clean and right["pgd-20", aim]
                    counts["all"] += clean and right["pgd-20", "all"]
                    counts["worst"] += all(right.values())
                    if readout == "direct" and not all(right.values()):
                        survive_all[image] = False
                assert found["clean"]["count"] == counts["clean"]
                assert found["aimed"]["pgd-20"]["count"] == counts["aimed"]
                assert found["all"]["pgd-20"]["count"] == counts["all"]
                assert found["worst"]["count"] == counts["worst"]
                square = found["aimed"]["square-500"]
                assert (square is None) == (label != "leaf")
        assert subject["any_level"]["levels"]["worst"]["count"] == sum(survive_all.values())
        matrix = subject["transfer"]["pgd-20"]
        for attacked, line in zip(matrix["attacked"], matrix["success"], strict=True):
            for label, cell in zip(matrix["evaluated"], line, strict=True):
                of_leaf = forest.find_cut(label).of_leaf
                fallen = kept = 0
                for passes in per_image.values():
                    by_pass = {(row["attack"], row["attacked"]): row for row in passes}
                    truth = of_leaf[passes[0]["leaf"]]
                    if by_pass["clean", ""]["direct"][label] == truth:
                        kept += 1
                        fallen += by_pass["pgd-20", attacked]["direct"][label] != truth
                assert (cell["count"], cell["n"]) == (fallen, kept)
        _check_hierarchy(subject, own, forest)
        _check_balance(subject, own, forest)


def _check_balance(subject: dict[str, Any], own: list[Row], forest: Forest) -> None:
    """Recompute balanced accuracy node by node."""
    for readout, scopes in subject["means"].items():
        levels: dict[str, list[float]] = {"clean": [], "worst": []}
        for cut in forest.cuts():
            shares: dict[str, list[float]] = {"clean": [], "worst": []}
            for node in range(len(cut.nodes)):
                passes: dict[str, dict[bool, list[bool]]] = {}
                for row in own:
                    if cut.of_leaf[row["leaf"]] == node:
                        leaf = row["direct"]["leaf"]
                        said = cut.of_leaf[leaf] if readout == "via_leaf" else row[readout][cut.label]
                        of_image = passes.setdefault(row["image"], {True: [], False: []})
                        of_image[row["attack"] == "clean"].append(said == node)
                if passes:
                    clean = [all(found[True]) for found in passes.values()]
                    worst = [all(found[True] + found[False]) for found in passes.values()]
                    shares["clean"].append(sum(clean) / len(clean))
                    shares["worst"].append(sum(worst) / len(worst))
            for name, found in shares.items():
                levels[name].append(sum(found) / len(found))
        for name, found in levels.items():
            assert _value(scopes["levels"]["balanced"][name]) == pytest.approx(sum(found) / len(found))


def test_always_the_most_frequent_answer_gains_nothing_in_balance(tiny_rows: list[Row], tiny_forest: Forest) -> None:
    always = {cut.label: 0 for cut in tiny_forest.cuts()}
    said = {"direct": always, "summed": always}
    constant = [
        tiny_rows[0] | said | {"image": f"{number}", "leaf": leaf} for number, leaf in enumerate((0, 0, 0, 1, 2, 3))
    ]
    levels = figures(constant, tiny_forest, **FEW)["models"][0]["means"]["direct"]["levels"]
    assert _value(levels["clean"]) == pytest.approx((3 / 6 + 4 / 6) / 2)
    assert _value(levels["balanced"]["clean"]) == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert levels["balanced"]["worst"] is None


def _check_hierarchy(subject: dict[str, Any], own: list[Row], forest: Forest) -> None:
    """Recompute from parent links alone, one row at a time."""
    for tree in forest.trees:
        chosen = [row for row in own if (row["attack"], row["attacked"]) == ("pgd-20", "leaf")]
        heights, overlaps, agree = [], [], 0
        for row in chosen:
            chains = []
            for node in (row["leaf"], row["direct"]["leaf"]):
                chain = [node]
                while tree.parents[chain[-1]] != -1:
                    chain.append(tree.parents[chain[-1]])
                chains.append(chain)
            truth, guess = chains
            shared = [node for node in truth if node in guess]
            heights.append(truth.index(shared[0]) if shared else len(truth))
            overlaps.append(len(shared) / len(truth))
            agree += all(
                row["direct"][f"{tree.name}/{level}"] == forest.cut(tree.name, level).of_leaf[row["direct"]["leaf"]]
                for level in range(1, len(tree.levels) + 1)
            )
        found = subject["hierarchy"][tree.name]["leaf"]["pgd-20"]
        wrong = [height for height in heights if height]
        assert _value(found["severity_all"]) == pytest.approx(sum(heights) / len(heights))
        assert _value(found["severity_mistakes"]) == pytest.approx(sum(wrong) / len(wrong))
        assert _value(found["tree_induced_error"]) == pytest.approx(2 * sum(heights) / len(heights))
        assert _value(found["f1"]) == pytest.approx(sum(overlaps) / len(overlaps))
        assert _value(found["consistency"]) == pytest.approx(agree / len(chosen))


def test_orderings_that_hold_by_construction(rows: list[Row], forest: Forest) -> None:
    for subject in figures(rows, forest, **FEW)["models"]:
        counts = []
        for level in subject["cuts"]:
            for found in level["readouts"].values():
                for robust in (*found["aimed"].values(), *found["all"].values(), found["aimed_worst"]):
                    assert robust is None or found["worst"]["count"] <= robust["count"] <= found["clean"]["count"]
                for figure in (found["clean"], found["worst"]):
                    assert figure["low"] <= figure["value"] <= figure["high"]
            counts.append(level["readouts"]["direct"]["worst"]["count"])
            leaf = subject["cuts"][0]["readouts"]["via_leaf"]
            assert level["readouts"]["via_leaf"]["clean"]["count"] >= leaf["clean"]["count"]
            assert level["readouts"]["via_leaf"]["worst"]["count"] >= leaf["worst"]["count"]
            assert sum(node["n"] for node in level["by_node"]) == 120
            assert sum(node["worst"]["count"] for node in level["by_node"] if node["worst"]) == counts[-1]
        assert subject["any_level"]["levels"]["worst"]["count"] <= min(counts)
        for mean in subject["means"]["direct"].values():
            for figure in (mean.get("clean"), mean.get("worst"), mean.get("lost")):
                assert figure is None or figure["low"] <= figure["value"] <= figure["high"]


def test_headline_names_the_strongest_and_the_weakest(rows: list[Row], forest: Forest) -> None:
    measured = figures(rows, forest, **FEW)
    facts = measured["headline"]
    assert (facts["strongest"]["model"], facts["strongest"]["head"]) == ("hrft", "hyperbolic")
    assert facts["runner_up"]["model"] == "tecoa"
    assert facts["breaks_most"]["model"] == "clip"
    assert len(measured["comparisons"]) == 3
    twin = compare(rows, forest, "hrft", "hyperbolic", "tecoa", "cosine", **FEW)
    assert twin in measured["comparisons"]


# ---- rows that are refused ---------------------------------------------------------------------------------


def _changed(**change: Any) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [rows[0] | change, *rows[1:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [], "no rows"),
        (_changed(direct={"leaf": 0, "kind/1": 0, "kind/9": 0}), "unknown cut 'kind/9'"),
        (_changed(direct={"leaf": 0}), "no direct prediction for the cut 'kind/1'"),
        (_changed(summed={"leaf": 0, "kind/1": 2}), "from 0 to 1"),
        (_changed(direct={"leaf": True, "kind/1": 0}), "must be an integer"),
        (_changed(leaf=4), "from 0 to 3"),
        (_changed(attacked="leaf"), "clean but names"),
        (_changed(valid=False), "marked invalid"),
        (_changed(valid=1), "valid 1, but it must be true or false"),
        (_changed(distance="far"), "distance 'far', but it must be a number"),
        (_changed(distance=10**400), "distance 1000"),
        (_changed(distance=True), "distance True, but it must be a number"),
        (_changed(distance=float("nan")), "distance nan, but it must be a number, and finite"),
        (_changed(forest="0" * 64), "belongs to forest 0000"),
        (lambda rows: [*rows, rows[5] | {"attacked": "kind/7"}], "attacks the unknown cut 'kind/7'"),
        (lambda rows: [*rows, rows[5] | {"attacked": "leaf:summed"}], "attacks the unknown cut"),
        (lambda rows: [*rows, rows[5]], "repeats image 'i1'"),
        (lambda rows: [*rows, rows[5] | {"model": "c", "leaf": 2}], "different forests"),
        (lambda rows: rows[:-1], "covers 3 of 4"),
        (
            lambda rows: [row for row in rows if row["model"] == "a" or row["attack"] != "clean"],
            "no clean pass",
        ),
        (lambda rows: [{k: v for k, v in rows[0].items() if k != "summed"}, *rows[1:]], "has no 'summed'"),
    ],
)
def test_refused_rows(
    change: Callable[[list[Row]], list[Row]], message: str, tiny_rows: list[Row], tiny_forest: Forest
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        figures(change(tiny_rows), tiny_forest, **FEW)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("a", "cosine", "a", "cosine"), {}, "compared with itself"),
        (("a", "cosine", "z", "cosine"), {}, "choose one of a/cosine, b/cosine"),
        (("a", "cosine", "b", "cosine"), {"readout": "loud"}, "direct, via_leaf, summed"),
    ],
)
def test_refused_comparisons(
    names: tuple[str, str, str, str],
    options: dict[str, Any],
    message: str,
    tiny_rows: list[Row],
    tiny_forest: Forest,
) -> None:
    with pytest.raises(ValueError, match=message):
        compare(tiny_rows, tiny_forest, *names, **options)
