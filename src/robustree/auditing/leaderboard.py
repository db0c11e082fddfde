"""Many audits beside each other: every figure made again from the rows, and only what may be compared ranked together.

No torch is needed: the facts are in the folders that audits wrote."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from robustree.auditing.checks import check
from robustree.auditing.metrics import table_figures
from robustree.auditing.report.folder import AuditFolder, read_audit
from robustree.auditing.table import Run, Subject, Table

ROUNDING = 1e-6
"""By how much a valid image may leave the threat: what `Threat.contains` tolerates."""


@dataclass(frozen=True)
class Terms:
    """What two audits must share before their figures may be compared; `attacks` are (run, settings as JSON)."""

    forest: str
    images: str
    eps: float
    norm: str
    stop: bool
    attacks: tuple[tuple[str, str], ...]

    def differences(self, other: Terms) -> list[str]:
        """The fields in which two terms differ."""
        return [name for name in self.__dataclass_fields__ if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True, eq=False)
class Entry:
    """One model read through one head. `audits` are the folders that measured it with one and the same outcome."""

    subject: Subject
    audits: tuple[str, ...]
    weights: str
    checks: tuple[check.Check, ...] | None

    @property
    def status(self) -> str:
        """The gravest status of the checks about this model or its whole audit; "not checked" without any."""
        return "not checked" if self.checks is None else check.worst(self.checks)


@dataclass(frozen=True, eq=False)
class Group:
    """Models that may be compared. `figures` ranks those without a failed check, `failed_figures` holds the others."""

    terms: Terms
    table: Table
    settings: dict[str, Any]
    entries: list[Entry] = field(default_factory=list)
    failed: list[Entry] = field(default_factory=list)

    def figures(self, entries: Sequence[Entry]) -> dict[str, Any]:
        """The figures of some of the group's models, under names that are unique in it."""
        subjects = tuple(replace(entry.subject, model=self.name(entry)) for entry in entries)
        return table_figures(replace(self.table, subjects=subjects))

    def name(self, entry: Entry) -> str:
        """The model's name, with its audit where the group holds another model of that name."""
        own = (entry.subject.model, entry.subject.head)
        alike = [other for other in self.entries + self.failed if (other.subject.model, other.subject.head) == own]
        return own[0] if len(alike) == 1 else f"{own[0]} in {entry.audits[0]}"


@dataclass(frozen=True)
class Proof:
    """What a reader needs to verify one audit; every digest is a sha256 in hexadecimal."""

    audit: str
    rows: str
    forest: str
    images: str
    checks: str | None
    weights: dict[str, str]
    seed: int
    versions: dict[str, str]
    command: str


def compared(folder: Path) -> tuple[list[Group], list[Proof]]:
    """Every audit in a folder, verified; groups are ordered by their number of models.

    Raises:
        ValueError: the folder holds no audit, one of them is unfinished or damaged, or it contradicts its own rows.
    """
    groups: dict[Terms, Group] = {}
    proofs = []
    for path in _audit_folders(folder):
        name = path.relative_to(folder).as_posix() if path != folder else folder.resolve().name
        found, weights = _verified(path)
        checks = check.read_checks(path) if (path / check.FILE).exists() else None
        images = _digest([found.table.images, found.table.leaves.tolist()])
        for subject in found.table.subjects:
            key = f"{subject.model}/{subject.head}"
            terms = _terms(found, subject, images)
            group = groups.setdefault(terms, Group(terms, found.table, found.header["attacks"]))
            own = None if checks is None else tuple(c for c in checks if c.subject in ("", key))
            _add(group, Entry(subject, (name,), weights[key], own))
        proofs.append(_proof(name, path, found, images, weights))
    return sorted(groups.values(), key=lambda group: -len(group.entries + group.failed)), proofs


def _audit_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(
            f"{str(folder)!r} is no folder: give the one that holds the audits, each in a folder of its own."
        )
    holding = {path.parent for name in ("audit.json", "rows.jsonl") for path in folder.rglob(name)}
    if not holding:
        raise ValueError(
            f"{str(folder)!r} holds no audit: write some with robustree audit MODEL --output {folder}/NAME."
        )
    return sorted(holding)


def _verified(path: Path) -> tuple[AuditFolder, dict[str, str]]:
    """An audit whose description agrees with its rows, and the weights' digest of each "model/head".

    Raises:
        ValueError: it does not; one sentence says which audit, and what to do.
    """
    try:
        found = read_audit(path)
        weights = {key: str(head["weights"]) for key, head in found.header["heads"].items()}
        _agree(found, weights)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the audit.json in {str(path)!r} is damaged or of another version ({error!r}): audit again."
        ) from error
    except ValueError as error:
        raise ValueError(f"the audit in {str(path)!r} cannot be ranked: {error}") from error
    return found, weights


def _agree(found: AuditFolder, weights: dict[str, str]) -> None:
    """Does what audit.json says follow from the rows?"""
    header, table = found.header, found.table
    keys = [f"{subject.model}/{subject.head}" for subject in table.subjects]
    missing = [key for key in weights if key not in keys]
    if missing:
        raise ValueError(f"{', '.join(missing)} has no rows yet: finish it with the same audit command.")
    foreign = [key for key in keys if key not in weights]
    if foreign:
        raise ValueError(f"audit.json does not name {', '.join(foreign)}, which has rows: restore it, or audit again.")
    if len(table.images) != header["images"]:
        raise ValueError(
            f"the rows are of {len(table.images)} images, audit.json says {header['images']}: restore both files, or "
            "audit again."
        )
    unknown = sorted({run.attack for subject in table.subjects for run in subject.runs} - set(header["attacks"]))
    if unknown:
        raise ValueError(f"audit.json does not describe the attack {unknown[0]}: restore it, or audit again.")
    eps = header["threat"]["eps"]
    largest = max(run.reach for subject in table.subjects for run in (subject.clean, *subject.runs))
    if largest > eps + ROUNDING:
        raise ValueError(
            f"audit.json says eps {eps:.5g}, but a row's image is {largest:.5g} from the clean one: restore both "
            "files, or audit again."
        )


def _terms(found: AuditFolder, subject: Subject, images: str) -> Terms:
    threat, attacks = found.header["threat"], found.header["attacks"]
    runs = sorted((run.label, json.dumps(attacks[run.attack], sort_keys=True)) for run in subject.runs)
    stop = bool(found.header["stop"])
    return Terms(found.table.forest.fingerprint, images, threat["eps"], threat["norm"], stop, tuple(runs))


def _add(group: Group, entry: Entry) -> None:
    """Add a model, or the audit's name to the model that is there already with the same weights and outcome."""
    entries = group.failed if entry.status == "fail" else group.entries
    for position, other in enumerate(entries):
        if _same(entry, other):
            entries[position] = replace(other, audits=other.audits + entry.audits)
            return
    entries.append(entry)


def _same(entry: Entry, other: Entry) -> bool:
    a, b = entry.subject, other.subject
    if (a.model, a.head, entry.weights, entry.status) != (b.model, b.head, other.weights, other.status):
        return False
    return all(_same_run(x, y) for x, y in zip((a.clean, *a.runs), (b.clean, *b.runs), strict=True))


def _same_run(a: Run, b: Run) -> bool:
    equal = all(np.array_equal(a.predicted[name], b.predicted[name]) for name in a.predicted)
    return a.label == b.label and a.invalid == b.invalid and equal


def _proof(name: str, path: Path, found: AuditFolder, images: str, weights: dict[str, str]) -> Proof:
    checks, header = path / check.FILE, found.header
    return Proof(
        audit=name,
        rows=found.rows_sha256,
        forest=found.table.forest.fingerprint,
        images=images,
        checks=hashlib.sha256(checks.read_bytes()).hexdigest() if checks.exists() else None,
        weights=weights,
        seed=header["seed"],
        versions=header["versions"],
        command=header["command"],
    )


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
