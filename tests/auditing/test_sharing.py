"""Levels that share what a cascade found: no decision stands that would fall without, and every row says the truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.attacks import PGD, AutoAttack, Threat
from robustree.attacks.auto import Broken
from robustree.auditing.audit import Subject
from robustree.auditing.plan import LevelAttack
from robustree.auditing.report.page import write_report
from robustree.auditing.rows import HEADER, ROWS
from robustree.auditing.sharing import ELSEWHERE
from robustree.taxonomy import Forest

from .audited import PLAN, Row, key_of, true_of

EPS = 4 / 255  # some decisions stand
CASCADE = LevelAttack(AutoAttack(version="fast", steps=2, targets=1), None)
ALONE = replace(PLAN, attacks=(CASCADE,), all_levels=None, threat=Threat(eps=EPS))
SHARED = replace(ALONE, share=True)
Audit = Callable[..., list[Row]]


def _standing(rows: list[Row], forest: Forest) -> set[tuple[str, ...]]:
    return {
        key_of(row)
        for row in rows
        if row["attacked"]
        for label, _, readout in [row["attacked"].partition(":")]
        if row[readout or "direct"][label] == true_of(row, forest, label)
    }


def test_what_falls_alone_falls_and_more_does(run: Audit, subjects: list[Subject], two_trees: Forest) -> None:
    alone, shared = run("alone", plan=ALONE, subjects=subjects[1:]), run("shared", plan=SHARED, subjects=subjects[1:])
    assert {key_of(row) for row in alone} == {key_of(row) for row in shared}
    assert _standing(shared, two_trees) <= _standing(alone, two_trees)
    fallen = {key_of(row): row for row in shared if row.get("broken_by") == ELSEWHERE}
    assert fallen and not fallen.keys() & _standing(shared, two_trees)
    for row in shared:
        assert row["valid"] and row["distance"] <= EPS + 1e-6
    # Nothing stands at a level that any image found by the cascade breaks there.
    for row in shared:
        for other in shared:
            if row["attacked"] and other["attacked"] and key_of(row)[:4] == key_of(other)[:4]:
                label, _, readout = row["attacked"].partition(":")
                truth = true_of(row, two_trees, label)
                assert row[readout or "direct"][label] != truth or other[readout or "direct"][label] == truth
    # Where neither fell to another level, both met the same attack.
    others = {key_of(row): row for row in alone}
    same = [row for row in shared if row.get("broken_by") not in (None, ELSEWHERE)]
    assert same and all(row == others[key_of(row)] for row in same)


@pytest.mark.parametrize("level", [0, 5])
def test_what_one_level_found_counts_at_those_before_and_after(
    run: Audit, subjects: list[Subject], two_trees: Forest, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    """With a cascade that fails at every level but one."""
    original, calls = AutoAttack.run, []

    def run_once(self: AutoAttack, f: Any, images: Tensor, *rest: Any, **named: Any) -> Broken:
        calls.append(1)
        if len(calls) == level + 1:
            return original(self, f, images, *rest, **named)
        return Broken(images.clone(), torch.full((len(images),), -1))

    monkeypatch.setattr(AutoAttack, "run", run_once)
    rows = run(plan=replace(SHARED, batch_size=10), subjects=subjects[1:2])
    labels = [cut.label for cut in two_trees.cuts()]
    found = {row["image"]: row for row in rows if row["attacked"] == labels[level]}
    elsewhere = [row for row in rows if row.get("broken_by") == ELSEWHERE]
    assert elsewhere
    for row in elsewhere:
        assert row["attacked"] != labels[level]
        assert row["direct"] == found[row["image"]]["direct"]


def test_rows_do_not_depend_on_interruptions_or_the_size_of_chunks(
    run: Audit, subjects: list[Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("whole", plan=SHARED, subjects=subjects[1:])
    lines = (tmp_path / "whole" / ROWS).read_bytes().splitlines(keepends=True)
    for kept in (15, len(lines) - 1):
        folder = tmp_path / f"resumed{kept}"
        folder.mkdir()
        (folder / HEADER).write_bytes((tmp_path / "whole" / HEADER).read_bytes())
        (folder / ROWS).write_bytes(b"".join(lines[:kept]))
        run(folder.name, plan=SHARED, subjects=subjects[1:])
        assert (folder / ROWS).read_bytes() == b"".join(lines)
    monkeypatch.setattr("robustree.auditing.audit.CHUNK", 1)
    small = {key_of(row): row for row in run("small", plan=SHARED, subjects=subjects[1:])}
    assert small.keys() == {key_of(row) for row in whole}
    for row in whole:
        assert small[key_of(row)] == row | {"distance": pytest.approx(row["distance"], abs=1e-6)}


def test_only_cascades_share_and_the_record_says_so(
    run: Audit, subjects: list[Subject], two_trees: Forest, tmp_path: Path
) -> None:
    mixed = replace(SHARED, attacks=(CASCADE, LevelAttack(PGD(steps=1))), readouts=("direct",))
    assert [len(runs) for runs in mixed.together(two_trees)] == [1, 6, *[1] * 6]
    assert [len(runs) for runs in ALONE.together(two_trees)] == [1] * 7
    noisy = replace(SHARED, attacks=(LevelAttack(AutoAttack(version="rand"), None),), readouts=("direct",))
    assert [len(runs) for runs in noisy.together(two_trees)] == [1] * 7
    run("audit", plan=mixed, subjects=subjects[:1])
    attacks: dict[str, Any] = json.loads((tmp_path / "audit" / HEADER).read_text())["attacks"]
    assert attacks["autoattack-fast"]["share"] is True and ELSEWHERE in attacks["autoattack-fast"]["stages"]
    assert "share" not in attacks["pgd-1-margin"]
    write_report(tmp_path / "audit")
    assert "autoattack-fast counts at every level what it found at any other" in (
        tmp_path / "audit" / "report.md"
    ).read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="rows of another attack called 'autoattack-fast'"):
        run("audit", plan=replace(mixed, share=False), subjects=subjects[:1])
