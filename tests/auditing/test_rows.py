"""Audits: every row once, whatever interrupts them, and one audit to a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustree.attacks import PGD, Threat
from robustree.auditing.audit import Status, Subject
from robustree.auditing.rows import HEADER, ROWS, read_rows
from robustree.data import AuditImages
from robustree.tree_model import TreeModel

from .audited import CLEAN, EPS, PLAN, Row, key_of, margin


def test_an_interrupted_audit_ends_in_the_same_rows(run: Callable[..., list[Row]], tmp_path: Path) -> None:
    """Cut at any byte: in a line, between two lines, or before the first."""
    plan = replace(margin(PGD(steps=1)), all_levels=None)
    whole = {key_of(row): row for row in run("whole", plan=plan)}
    content = (tmp_path / "whole" / ROWS).read_bytes()
    line_end = content.index(b"\n", len(content) // 2)
    cuts = [0, 1, len(content) - 1, line_end, line_end + 1]
    cuts += np.random.default_rng(0).integers(2, len(content), 5).tolist()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / HEADER).write_bytes((tmp_path / "whole" / HEADER).read_bytes())
    for cut in cuts:
        (tmp_path / "cut" / ROWS).write_bytes(content[:cut])
        rows = run("cut", plan=plan)
        assert len(rows) == len(whole), cut
        assert {key_of(row): row for row in rows} == whole, cut


def test_a_finished_audit_is_not_computed_again_and_other_models_join_it(
    run: Callable[..., list[Row]], subjects: list[Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(subjects=subjects[:2])
    monkeypatch.setattr(TreeModel, "forward", None)  # nothing is asked of the models
    assert run(subjects=subjects[:2]) == first
    monkeypatch.undo()
    both = run(subjects=subjects[2:])
    assert both[: len(first)] == first
    header = json.loads((tmp_path / "audit" / HEADER).read_text())
    assert header["models"] == ["first", "second"]
    assert set(header["heads"]) == {"first/cosine", "first/hyperbolic", "second/cosine"}
    assert header["heads"]["first/hyperbolic"]["curvature"] == 1.0
    assert header["threat"] == {"eps": EPS, "norm": "linf"}
    assert header["images"] == 10
    assert header["command"] == "robustree audit"


def test_the_rows_do_not_depend_on_what_else_is_audited(run: Callable[..., list[Row]], subjects: list[Subject]) -> None:
    together = [row for row in run("together") if row["model"] == "second"]
    assert run("alone", subjects=subjects[2:]) == together


def test_progress_counts_every_chunk_once(run: Callable[..., list[Row]]) -> None:
    seen: list[Status] = []
    run(plan=replace(PLAN, batch_size=2), report=seen.append)
    assert [status.done for status in seen] == list(range(1, 3 * 14 * 2 + 1))
    assert {status.total for status in seen} == {3 * 14 * 2}
    assert {status.images for status in seen} == {8, 2}


@pytest.mark.parametrize(
    ("changes", "name"), [({"threat": Threat(eps=4 / 255)}, "threat"), ({"stop": True}, "stop"), ({"seed": 4}, "seed")]
)
def test_a_directory_with_another_audit(run: Callable[..., list[Row]], changes: dict[str, Any], name: str) -> None:
    rows = run(plan=margin(PGD(steps=1)))
    with pytest.raises(
        ValueError, match=rf"audit' holds an audit with another {name} \(.*\): choose another directory"
    ):
        run(plan=replace(margin(PGD(steps=1)), **changes))
    assert run(plan=margin(PGD(steps=1))) == rows


def test_other_attacks_join_an_audit_but_not_others_of_the_same_name(
    run: Callable[..., list[Row]], tmp_path: Path
) -> None:
    first = run(plan=margin(PGD(steps=1)))
    both = run(plan=replace(margin(PGD(steps=2)), all_levels=None))
    assert both[: len(first)] == first and len(both) > len(first)
    header = json.loads((tmp_path / "audit" / HEADER).read_text())
    assert set(header["attacks"]) == {"pgd-1-margin", "pgd-1-cross_entropy", "pgd-2-margin"}
    assert header["attacks"]["pgd-2-margin"]["attack"]["steps"] == 2
    with pytest.raises(ValueError, match="holds rows of another attack called 'pgd-2-margin'"):
        run(plan=replace(margin(PGD(steps=2, step_size=0.5)), all_levels=None))


def test_rows_depend_on_no_batch_size(run: Callable[..., list[Row]]) -> None:
    plan = margin(PGD(steps=2, restarts=2))
    decisions = []
    for batch_size in (1, 3, 64):
        rows = run(f"by {batch_size}", plan=replace(plan, batch_size=batch_size))
        decisions.append({key_of(row): (row["direct"], row["summed"], row["valid"]) for row in rows})
    assert decisions[0] == decisions[1] == decisions[2]


def test_a_second_process_is_refused_while_the_first_writes(run: Callable[..., list[Row]]) -> None:
    refused = []

    def again(status: Status) -> None:
        if status.done == 2:
            with pytest.raises(ValueError, match=r"another audit is writing into .*audit': wait for it"):
                run()
            refused.append(status)

    run(report=again)
    assert len(refused) == 1


def test_a_directory_with_an_audit_of_other_images(run: Callable[..., list[Row]], images: AuditImages) -> None:
    plan = CLEAN
    run(plan=plan)
    fewer = AuditImages(images.pixels[:9], images.leaves[:9], images.ids[:9])
    with pytest.raises(ValueError, match=r"holds an audit with another images \(10\)"):
        run(plan=plan, images=fewer)
    renamed = replace(images, ids=tuple(f"other/{k}" for k in range(10)))
    relabelled = replace(images, leaves=(images.leaves + 1) % 9)
    for others in (renamed, relabelled):
        with pytest.raises(ValueError, match="holds an audit with another labels"):
            run(plan=plan, images=others)


def test_a_directory_without_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        read_rows(tmp_path)
    assert str(caught.value) == (f"'{tmp_path}' holds no rows.jsonl: give a directory that `robustree audit` wrote.")
