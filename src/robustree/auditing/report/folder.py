"""What an audit left in its folder, read without torch: its rows as a table, its forest and its description."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustree.auditing.table import Table, read_table
from robustree.taxonomy.files import forest_from_json

Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class AuditFolder:
    """One audit: `header` is audit.json, `rows` are as they stand in rows.jsonl, whose sha256 is `rows_sha256`."""

    path: Path
    header: dict[str, Any]
    rows: list[Row]
    table: Table
    rows_sha256: str

    @property
    def stages(self) -> dict[str, list[str]]:
        """The stages of each cascade among the attacks."""
        return {name: attack["stages"] for name, attack in self.header.get("attacks", {}).items() if "stages" in attack}


def read_audit(folder: Path) -> AuditFolder:
    """Read rows.jsonl, audit.json and forest.json.

    Raises:
        ValueError: a file is missing or broken, `read_table` refuses the rows, or the forest is not the audit's.
    """
    forest = forest_from_json(read_json(folder / "forest.json"))
    header = read_json(folder / "audit.json")
    if not isinstance(header, dict):
        raise ValueError(f"{folder / 'audit.json'} holds no JSON object: run the audit again.")
    if header.get("forest", forest.fingerprint) != forest.fingerprint:
        raise ValueError(
            f"audit.json was written for forest {header['forest']}, but forest.json is {forest.fingerprint}: "
            "keep the forest that the audit wrote."
        )
    rows, digest = _read_rows(folder / "rows.jsonl")
    return AuditFolder(folder, header, rows, read_table(rows, forest), digest)


def read_json(path: Path) -> Any:
    """Read a JSON file of an audit; raises ValueError if it is missing or no JSON."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the folder into which the audit wrote.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON ({error}): run the audit again.") from error


def _read_rows(path: Path) -> tuple[list[Row], str]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the folder into which the audit wrote.")
    content = path.read_bytes()
    rows = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n") if content else (), start=1):
        try:
            rows.append(json.loads(line))
            if not isinstance(rows[-1], dict):
                raise ValueError(f"it is {line[:40].decode()}")
        except ValueError as error:
            raise ValueError(
                f"Line {number} of {path} is no row of an audit ({error}): delete it (a crash may leave half a line at "
                "the end), and the same audit makes its row again."
            ) from error
    return rows, hashlib.sha256(content).hexdigest()
