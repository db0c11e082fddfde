"""One measured cell of a table as a file: which model, which images, which attack, and the figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from robustree.auditing.outcomes import Outcomes
from robustree.auditing.plan import described
from robustree.auditing.table import read_table
from robustree.data import Record
from robustree.reproducing.scales import Scale
from robustree.reproducing.tables import Candidate, Evaluation
from robustree.taxonomy import Forest
from robustree.training import recipe_record
from robustree.writing import write_whole


def protocol(scale: Scale, candidate: Candidate, evaluation: Evaluation, record: Record) -> dict[str, Any]:
    """All that decides a cell's figures, as JSON values; a file with another protocol is another cell."""
    recipe = scale.recipe(candidate)
    content = {
        "scale": scale.name,
        "model": scale.models.get(candidate.backbone),
        "recipe": recipe_record(recipe) if recipe else None,
        "training": scale.training if recipe else None,
        "trees": list(scale.trees[: candidate.trees]) if recipe else [],
        "data": record.name,
        "images": scale.images,
        "eps": scale.eps(evaluation),
        "attack": described(scale.attacks[evaluation.attack]),
        "levels": [cut.label for cut in scale.audited_forest(record, evaluation).cuts()],
        "seed": scale.base.seed,
    }
    return json.loads(json.dumps(content))


def figures(rows: Iterable[Mapping[str, Any]], forest: Forest, name: str) -> dict[str, Any]:
    """Clean and robust accuracy of one model in an audit's rows: of the leaf with its Wilson interval, and the mean
    over the levels, each under the attack that aims at it (None where the leaf alone was attacked)."""
    table = read_table((row for row in rows if row["model"] == name), forest)
    outcomes = Outcomes(table, table.subjects[0])
    (attack,) = outcomes.attacks
    cuts = range(len(table.cuts))
    held = outcomes.aimed("direct", attack, list(cuts))
    levels = None
    if len(cuts) > 1 and held is not None:
        levels = {"clean": float(outcomes.robust("direct", ()).mean()), "robust": float(held.mean())}
    return {
        "images": len(table.images),
        "clean": outcomes.rate("direct", 0, ()),
        "robust": outcomes.rate_at("direct", 0, attack, "leaf"),
        "levels": levels,
    }


def write_result(path: Path, protocol: Mapping[str, Any], figures: Mapping[str, Any], seconds: float) -> None:
    """Write a finished cell."""
    content = {"protocol": protocol, "figures": figures, "audit_seconds": round(seconds, 1)}
    write_whole(path, json.dumps(content, indent=1) + "\n")


def read_result(path: Path, protocol: Mapping[str, Any]) -> dict[str, Any] | None:
    """The figures of a finished cell; None where there is none yet.

    Raises:
        ValueError: the file is damaged, or of another protocol.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found, figures = content["protocol"], content["figures"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}): delete it, and its cell is measured again.") from error
    for name, value in protocol.items():
        if found.get(name) != value:
            raise ValueError(
                f"{str(path)!r} was measured with another {name}: choose another --output, or delete the file."
            )
    return figures
