"""A synthetic audit with everything that a report can show: two cascades, curves and checks."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robustree.auditing.checks.catalogue import RULES
from robustree.auditing.checks.check import FORMAT as CHECKS_FORMAT
from robustree.auditing.checks.check import Status, found
from robustree.auditing.curve_file import FORMAT as CURVES_FORMAT
from robustree.auditing.curve_file import level_curves
from robustree.taxonomy.forest import Forest
from tests.auditing.conftest import SKILLS, Row, synthetic_audit, synthetic_forest, synthetic_rows, write_audit

CASCADE = "autoattack-standard"
STAGES = ("apgd-ce", "apgd-t", "fab-t", "square")
GRIDS = {"eps": [0.0, *(k / 255 for k in (1, 2, 4, 8))], "steps": [5, 10, 20, 40, 100]}


def cascade_rows(rows: list[Row], forest: Forest, *, seed: int = 1) -> list[Row]:
    """A cascade at every level: it breaks what pgd-20 breaks and some more, mostly in its first stage."""
    dice, made = random.Random(seed), []
    clean = {(r["image"], r["model"], r["head"]): r for r in rows if r["attack"] == "clean"}
    for row in rows:
        label = row["attacked"]
        if row["attack"] != "pgd-20" or label == "all" or ":" in label:
            continue
        cut = forest.find_cut(label)
        truth = cut.of_leaf[row["leaf"]]
        direct = dict(row["direct"])
        if direct[label] == truth and dice.random() < 0.1:
            direct[label] = (truth + 1) % len(cut.nodes)
        was_right = clean[row["image"], row["model"], row["head"]]["direct"][label] == truth
        by = dice.choices(STAGES, (70, 18, 3, 1))[0] if was_right and direct[label] != truth else None
        made.append({**row, "attack": CASCADE, "direct": direct} | ({"broken_by": by} if by else {}))
    return made


def synthetic_curves(forest: Forest, rows: list[Row], *, seed: int = 2) -> dict[str, Any]:
    """Curves of 40 of the images: hardened models fall later."""
    dice = random.Random(seed)
    images = sorted({row["image"] for row in rows})[:40]
    clean = {(r["image"], r["model"], r["head"]): r for r in rows if r["attack"] == "clean"}
    subjects = []
    for (model, head), (low, high) in SKILLS.items():
        fell: dict[str, dict[str, list[float | None]]] = {}
        for cut in forest.cuts():
            fell[cut.label] = {"eps": [], "steps": []}
            for image in images:
                row = clean[image, model, head]
                right = row["direct"][cut.label] == cut.of_leaf[row["leaf"]]
                strength = dice.expovariate(1) * (0.4 if model == "clip" else 5 + 3 * cut.level * high[1])
                eps = next((e for e in GRIDS["eps"][1:] if e * 255 >= strength), None)
                steps = dice.randint(1, 12) if strength < 4 * (1 - 0.2 * low[1]) else None
                fell[cut.label]["eps"].append(eps if right else 0.0)
                fell[cut.label]["steps"].append(steps if right else 0)
        entry = {"model": model, "head": head, "weights": "0" * 64, "fell": fell}
        subjects.append(entry | level_curves(fell, GRIDS))
    threat = {"eps": 4 / 255, "norm": "linf"}
    attack = {"attack": "PGD", "steps": 20, "step_size": 0.25}
    protocol = {"forest": forest.fingerprint, "threat": threat, **GRIDS, "attack": attack, "readout": "direct"}
    return {"format": CURVES_FORMAT, "protocol": protocol, "images": images, "subjects": subjects}


def synthetic_checks() -> dict[str, Any]:
    """Every check once for the audit or for each of two subjects; three are not passed."""
    bad: dict[tuple[str, str], tuple[Status, float | str, str]] = {
        ("S7", "clip/cosine"): ("fail", 0.31, "9 images stand at 8/255 and 4 at 2/255 (twemoji/003, twemoji/017)."),
        ("S14", "tecoa/cosine"): ("flag", 0.17, "the last steps still brought more than 5 % of the gain in 8 images."),
        ("S24", "tecoa/cosine"): ("flag", 0.9996, "'boat' and 'canoe' at leaf have texts of cosine 0.9996."),
        ("S11", "clip/cosine"): ("not applicable", "", "not checked: no other model was audited."),
    }
    checks = []
    for name in RULES:
        whole = name in ("S1", "S19", "S20", "S25", "S26")
        for subject in ("",) if whole else ("clip/cosine", "tecoa/cosine"):
            status, figure, detail = bad.get((name, subject), ("pass", 0.0, "as it should be."))
            checks.append(asdict(found(name, subject, status, figure, detail)))
    return {"format": CHECKS_FORMAT, "checks": checks, "budget": {"images": 48}, "seconds": 9.5}


def write_rich_audit(directory: Path, *, images: int = 120, gallery: bool = True) -> Path:
    """Write the synthetic audit with a cascade, curves and checks, and return its folder."""
    write_audit(directory, gallery=gallery, images=images)
    forest = synthetic_forest()
    rows = synthetic_rows(forest, images=images)
    rows += cascade_rows(rows, forest)
    (directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    audit = synthetic_audit(forest, images=images)
    cascade = {"attack": {"attack": "AutoAttack", "version": "standard"}, "loss": None, "stages": list(STAGES)}
    audit["attacks"] |= {CASCADE: cascade, "square-500": {"attack": {"attack": "Square"}, "loss": "margin"}}
    (directory / "audit.json").write_text(json.dumps(audit), encoding="utf-8")
    if gallery:  # the pictures of images that have rows
        path = directory / "gallery.json"
        entries = json.loads(path.read_text(encoding="utf-8"))
        for entry, number in zip(entries, (0, 10, 7, 4), strict=True):
            entry["image"] = f"twemoji/{number:03d}"
        path.write_text(json.dumps(entries), encoding="utf-8")
    (directory / "curves.json").write_text(json.dumps(synthetic_curves(forest, rows)), encoding="utf-8")
    (directory / "checks.json").write_text(json.dumps(synthetic_checks()), encoding="utf-8")
    return directory
