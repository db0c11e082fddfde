"""Rows become arrays one at a time: in any order, and without being held."""

from __future__ import annotations

import hashlib
import json
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from robustree.auditing.report.folder import read_audit
from robustree.auditing.rows import FOREST, HEADER, ROWS, read_rows
from robustree.auditing.table import Table, read_table
from robustree.taxonomy import Forest, forest_to_json

from .audited import Row


def _arrays(table: Table) -> list[Any]:
    subjects = sorted(table.subjects, key=lambda subject: subject.model)
    runs = [run for subject in subjects for run in (subject.clean, *subject.runs)]
    said = [(run.label, run.distance, run.reach, run.invalid, run.broken_by) for run in runs]
    decided = [{name: values.tolist() for name, values in run.predicted.items()} for run in runs]
    return [table.images, table.leaves.tolist(), table.truth.tolist(), said, decided]


def test_the_order_of_rows_does_not_matter(tiny_rows: list[Row], tiny_forest: Forest) -> None:
    tiny_rows[5] |= {"broken_by": "apgd", "distance": 0.01}
    tiny_rows[6] |= {"valid": False, "distance": 0.5}
    table = read_table(iter(tiny_rows), tiny_forest)
    leaf = table.subject("a", "cosine").runs[0]
    assert (leaf.distance, leaf.reach, leaf.invalid) == (0.5, 0.015, ("i2",))
    assert leaf.broken_by == (None, "apgd", None, None)
    assert leaf.predicted["direct"][:, 0].tolist() == [0, 0, 2, 3]  # the third is the clean decision
    for seed in range(5):
        mixed = random.Random(seed).sample(tiny_rows, len(tiny_rows))
        mixed.sort(key=lambda row: row["attack"] != "clean")  # only what an attack is called first orders attacks
        assert _arrays(read_table(mixed, tiny_forest)) == _arrays(table)


def _many(rows: list[Row], copies: int) -> Iterator[Row]:
    for row in rows:
        for copy in range(copies):
            yield row | {"image": f"{copy:05d}/{row['image']}", "direct": dict(row["direct"])}


def test_a_row_leaves_a_few_bytes(tiny_rows: list[Row], tiny_forest: Forest, tmp_path: Path) -> None:
    """1.5 KiB as a dictionary; read, a tenth of that for everything that the table holds and held on the way."""
    copies, rows = 1000, tiny_rows[:12]
    with (tmp_path / ROWS).open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in _many(rows, copies))
    tracemalloc.start()
    table = read_table(read_rows(tmp_path), tiny_forest)
    _, peak = tracemalloc.get_traced_memory()
    held = list(read_rows(tmp_path))
    now, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table.images) == 4 * copies
    assert now / len(held) > 1000
    assert peak / len(held) < 160
    assert np.array_equal(table.truth[:, 0], table.leaves)


def test_a_folder_is_read_with_the_digest_of_its_rows(
    tiny_rows: list[Row], tiny_forest: Forest, tmp_path: Path
) -> None:
    content = "".join(json.dumps(row) + "\n" for row in tiny_rows).encode()
    (tmp_path / ROWS).write_bytes(content)
    (tmp_path / FOREST).write_text(json.dumps(forest_to_json(tiny_forest)))
    (tmp_path / HEADER).write_text("{}")
    found = read_audit(tmp_path)
    assert found.rows_sha256 == hashlib.sha256(content).hexdigest()
    assert _arrays(found.table) == _arrays(read_table(tiny_rows, tiny_forest))
