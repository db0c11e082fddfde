"""What an audit left in its folder, read without torch: its rows as a table, its forest and its description."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustree.auditing.rows import read_rows
from robustree.auditing.table import Table, read_table
from robustree.taxonomy.files import forest_from_json


@dataclass(frozen=True, eq=False)
class AuditFolder:
    """One audit: `header` is audit.json, `table` holds the rows of rows.jsonl, whose sha256 is `rows_sha256`."""

    path: Path
    header: dict[str, Any]
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
    digest = hashlib.sha256()
    table = read_table(read_rows(folder, each_line=digest.update), forest)
    return AuditFolder(folder, header, table, digest.hexdigest())


def read_json(path: Path) -> Any:
    """Read a JSON file of an audit; raises ValueError if it is missing or no JSON."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the folder into which the audit wrote.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON ({error}): run the audit again.") from error
