"""`robustree quickstart`: two hardenings and one audit, skipped where they are done; and its reading of the figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustree.cli import quickstart
from robustree.cli.table import reading
from tests.cli.conftest import Run


def test_quickstart_runs_and_is_not_done_twice(
    run: Run, house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(quickstart.DEFAULTS, attack_steps=1, training_attack_steps=1, batch_size=8, exhibits=1)
    monkeypatch.setattr(quickstart, "DEFAULTS", small)
    output = tmp_path / "out"
    words = ["quickstart", "--model", house / "clip", "--images", 16, "--steps", 1, "--output", output]
    words += ["--device", "cpu"]
    first = run(*words)
    assert first.code == 0
    assert f"first pictures       {output / 'report.html'}" in first.err
    records = [
        json.loads((output / n / "robustree.json").read_text())["record"]["recipe"] for n in ("tecoa", "hierarchical")
    ]
    kinds = [(record.pop("method")["kind"], record.pop("space")["kind"]) for record in records]
    assert kinds == [("TeCoA", "sphere"), ("Hierarchical", "poincare")]
    assert records[0] == records[1]
    figures = json.loads((output / "figures.json").read_text())
    assert [(s["model"], s["head"]) for s in figures["models"]] == [
        ("clip", "cosine"),
        ("tecoa", "cosine"),
        ("hierarchical", "hyperbolic"),
        ("hierarchical", "cosine"),
    ]
    assert (output / "report.html").is_file() and (output / "gallery.json").is_file()
    assert "Of all decisions" in first.out and "tecoa" in first.out
    rows = (output / "rows.jsonl").read_bytes()
    monkeypatch.setattr("robustree.cli.quickstart.harden_with_bar", None)
    second = run(*words)
    assert (second.code, second.out) == (0, first.out) and "first pictures" not in second.err
    assert (output / "rows.jsonl").read_bytes() == rows


def test_an_interruption_between_the_parts_says_what_is_kept(
    run: Run, house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(quickstart, "DEFAULTS", replace(quickstart.DEFAULTS, attack_steps=1))
    monkeypatch.setattr(quickstart, "make_exhibits", stop)
    ran = run("quickstart", "--model", house / "clip", "--images", 4, "--output", tmp_path / "out", "--device", "cpu")
    assert ran.code == 130
    kept = f"what is finished stays in {tmp_path / 'out'}; run the same command to go on"
    assert ran.err.splitlines()[-1] == f"interrupted: {kept}."
    assert (tmp_path / "out" / "rows.jsonl").stat().st_size


def _figures(**kept: tuple[float, float]) -> dict[str, Any]:
    models = [
        {"model": name, "means": {"direct": {"levels": {"clean": {"value": clean}, "worst": {"value": worst}}}}}
        for name, (clean, worst) in kept.items()
    ]
    return {"models": models, "images": 131}


@pytest.mark.parametrize(
    ("gap", "sentence"),
    [
        ((0.04, 0.01, 0.07), "hierarchical keeps more than tecoa, by more than the images' chance (+4.0 points"),
        ((-0.04, -0.07, -0.01), "hierarchical keeps less than tecoa, by more than the images' chance (-4.0 points"),
        ((0.01, -0.02, 0.04), "Between hierarchical and tecoa these 131 images show no clear difference (+1.0 points"),
    ],
)
def test_the_reading_follows_the_figures(gap: tuple[float, float, float], sentence: str) -> None:
    value, low, high = gap
    comparison = {
        "a": {"model": "hierarchical", "head": "hyperbolic"},
        "b": {"model": "tecoa", "head": "cosine"},
        "difference": {"value": value, "low": low, "high": high},
        "clear": low > 0 or high < 0,
    }
    text = reading(_figures(nano=(0.8, 0.02), tecoa=(0.6, 0.3), hierarchical=(0.61, 0.3 + value)), comparison)
    text = text.replace("\N{NO-BREAK SPACE}", " ")
    assert "nano 2.0 % (80.0 % clean), tecoa 30.0 % (60.0 % clean)" in text
    assert sentence in text
