"""`robustree audit` and `robustree report`: rows, gallery, report, resume, and which trees a model may meet."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robustree.auditing import audit as auditing_module
from robustree.auditing.checks.battery import Progress
from robustree.auditing.checks.check import FILE, FORMAT, Check, Status, found
from robustree.cli.loading import forest_of_trees
from robustree.data import CATALOG
from tests.cli.conftest import Run

FILES = ("rows.jsonl", "audit.json", "forest.json", "gallery.json", "figures.json", "report.html", "report.md")


def test_a_part_of_imagenet_takes_its_trees_by_name() -> None:
    forest = forest_of_trees(["kind"], "imagenet_r")
    assert forest == CATALOG["imagenet_r"].forest(("kind",)) == forest_of_trees(["imagenet/kind"], "imagenet_r")


def test_an_audit_of_two_models(run: Run, house: Path, hardened: Path, auditing: list[object], tmp_path: Path) -> None:
    ran = run("audit", house / "clip", f"hrft={hardened}", *auditing)
    assert ran.code == 0
    folder = tmp_path / "audit"
    assert all((folder / name).is_file() for name in FILES)
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    heads = {(row["model"], row["head"]) for row in rows}
    assert heads == {("clip", "cosine"), ("hrft", "hyperbolic"), ("hrft", "cosine")}
    assert {row["attacked"] for row in rows} == {"", "leaf", "things/1", "things/2", "all"}
    assert len(rows) == 3 * 5 * 12 and all(row["valid"] for row in rows)
    for text in ("things/1", "mean of levels", "right at every level", "(hyperbolic)", "→", "McNemar"):
        assert text in ran.out
    assert "checks" not in ran.out and not (folder / "checks.json").exists() and not (folder / "curves.json").exists()
    assert ran.out.splitlines()[-1].split() == ["report", str(folder / "report.html")]
    figures = json.loads((folder / "figures.json").read_text())
    leaf = figures["models"][0]["cuts"][0]["readouts"]["direct"]
    assert f"{100 * leaf['clean']['value']:.1f} → {100 * leaf['worst']['value']:.1f}" in ran.out
    assert json.loads((folder / "audit.json").read_text())["command"].startswith("robustree audit")
    # Every other model and head beside the strongest: images that only one of the two keeps, and McNemar's p.
    table = ran.out[ran.out.index(" :") :].splitlines()
    assert len(figures["comparisons"]) == 2
    for number, label in enumerate(("leaf", "things/1", "things/2")):
        line = next(line for line in table if line.split()[:1] == [label])
        cuts = [pair["cuts"][number] for pair in figures["comparisons"]]
        found = [(int(a), int(b), float(p)) for a, b, p in re.findall(r"(\d+) : (\d+) +p [=<] ([\d.]+)", line)]
        assert found == [(c["only_a"], c["only_b"], pytest.approx(c["p_holm"], abs=1e-3)) for c in cuts]
    means = next(line for line in table if line.startswith(" robust, mean of levels"))
    assert [f"{100 * pair['difference']['value']:+.1f}" for pair in figures["comparisons"]] == re.findall(
        r"([+-][\d.]+) \(", means
    )


def test_images_of_other_models_are_shown_to_the_audited_ones(
    run: Run, house: Path, hardened: Path, auditing: list[object], tmp_path: Path
) -> None:
    words = ["audit", hardened, *auditing, "--transfer-from", f"plain={house / 'clip'}", "--trees", house / "tree.json"]
    assert run(*words).code == 0
    rows = [json.loads(line) for line in (tmp_path / "audit" / "rows.jsonl").read_text().splitlines()]
    moved = [row for row in rows if row["attack"] == "from-plain-margin"]
    assert {row["model"] for row in rows} == {"hardened"} and all(row["valid"] for row in moved)
    assert {row["attacked"] for row in moved} == {"leaf", "things/1", "things/2"}
    heads = {row["head"] for row in moved}
    assert len(heads) == 2 and len(moved) == 2 * 3 * 12
    assert "from-plain-margin" in (tmp_path / "audit" / "report.html").read_text()


def test_the_gallery_shows_kept_attacks(run: Run, house: Path, auditing: list[object], tmp_path: Path) -> None:
    words = [*auditing, "--trees", house / "tree.json", "--pgd.steps", 8, "--threat.eps", "48/255", "--gallery", 3]
    assert run("audit", house / "clip", *words).code == 0
    folder = tmp_path / "audit"
    entries = json.loads((folder / "gallery.json").read_text())
    assert entries
    for entry in entries:
        assert entry["attacked"] == "things/2" and entry["kept_after_rounding"]
        clean, adversarial = (
            np.asarray(Image.open(folder / "gallery" / entry[f"{kind}_png"])).astype(int)
            for kind in ("clean", "adversarial")
        )
        assert 0 < np.abs(clean - adversarial).max() <= 48
        path = entry["paths"]["clip"]["things"]
        assert path["clean"][-1] == entry["truth"]["things"][-1]
        assert path["adversarial"][-1] != entry["truth"]["things"][-1]
    page = (folder / "report.html").read_text()
    assert 'id="gallery"' in page


def test_an_interrupted_audit_goes_on_to_the_same_rows(
    run: Run, house: Path, auditing: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["audit", house / "clip", *auditing, "--trees", house / "tree.json"]
    assert run(*words).code == 0
    whole = (tmp_path / "audit" / "rows.jsonl").read_bytes()
    (tmp_path / "audit").rename(tmp_path / "whole")
    original, calls = auditing_module._chunk, []

    def chunk(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(auditing_module, "_chunk", chunk)
    stopped = run(*words)
    assert stopped.code == 130
    assert stopped.err.splitlines()[-1] == (
        f"interrupted: finished rows stay in {tmp_path / 'audit'}; run the same command to go on."
    )
    assert run(*words).code == 0
    assert (tmp_path / "audit" / "rows.jsonl").read_bytes() == whole
    assert len(calls) == 1 + 5


def test_trees_must_be_the_checkpoint_s_own(
    run: Run, house: Path, hardened: Path, auditing: list[object], tmp_path: Path
) -> None:
    words = ["audit", hardened, *auditing, "--trees", house / "other.json"]
    ran = run(*words)
    assert ran.code == 2 and ran.err.count("\n") == 1
    assert "the checkpoint 'hardened' was hardened with the trees things (forest " in ran.err
    assert "but --trees gives the trees use (forest " in ran.err and "--other-trees" in ran.err
    assert not (tmp_path / "audit").exists()
    assert run(*words, "--other-trees").code == 0
    assert run("audit", hardened, *auditing[:2], "--output", tmp_path / "same", "--trees", house / "tree.json",
               "--pgd.steps", 1, "--gallery", 0).code == 0  # fmt: skip


def test_rows_of_other_weights_are_never_mixed(
    run: Run, house: Path, hardened: Path, auditing: list[object], tmp_path: Path
) -> None:
    tree = ["--trees", house / "tree.json"]
    assert run("audit", f"it={house / 'clip'}", *auditing, *tree).code == 0
    ran = run("audit", f"it={hardened}", *auditing, *tree)
    assert (ran.code, ran.err) == (
        2,
        f"error: {str(tmp_path / 'audit')!r} holds rows of another model called 'it': "
        "choose another directory, or give the model another name.\n",
    )


def test_refusals(run: Run, house: Path, hardened: Path, auditing: list[object], tmp_path: Path) -> None:
    tree = ["--trees", house / "tree.json"]
    broken = house / "broken" / "fox"
    broken.mkdir(parents=True, exist_ok=True)
    (broken / "cut.png").write_bytes((house / "images" / "fox" / "0.png").read_bytes()[:300])
    (house / "strange" / "dragon").mkdir(parents=True, exist_ok=True)
    cases = [
        ([house / "clip", house / "clip", *auditing, *tree], "two models are called 'clip'; write name=path"),
        ([house / "images", *auditing, *tree], f"{str(house / 'images')!r} has no config.json"),
        ([house / "clip", *auditing], f"the data {str(house / 'images')!r} comes without a label tree"),
        ([*auditing, *tree], "no model was given"),
        ([house / "clip", *auditing, *tree, "--images", 13], "13 images were asked for"),
        ([house / "clip", *auditing, *tree, "--data", house / "broken"], f"{str(broken / 'cut.png')!r} could not be"),
        ([house / "clip", *auditing, *tree, "--data", house / "strange"], "the folder 'dragon' in"),
        ([hardened, *auditing, "--data", "emoji"], "the trees have 6 classes, not the 262 of the emoji data"),
        ([house / "clip", *auditing, *tree, "--data", "emojis"], "data is 'emojis' (did you mean 'emoji'?)"),
        ([house / "clip", *auditing, *tree, "--gallery", -1], "--gallery is -1"),
        ([house / "clip", *auditing, *tree, "--strict"], "--strict asks for the checks, and --no-checks leaves them"),
    ]
    for words, sentence in cases:
        ran = run("audit", *words)
        assert (ran.code, ran.out) == (2, ""), sentence
        assert ran.err.splitlines()[-1].startswith(f"error: {sentence}")


def test_checks_and_curves_are_measured_and_printed(
    run: Run, house: Path, auditing: list[object], tmp_path: Path
) -> None:
    words = [word for word in auditing if word != "--no-checks"]
    ran = run("audit", house / "clip", *words, "--trees", house / "tree.json", "--curves", "--images", 6)
    folder = tmp_path / "audit"
    assert ran.code == 0
    assert "curves" in ran.err and "checks" in ran.err
    checks = json.loads((folder / "checks.json").read_text())["checks"]
    lines = ran.out.splitlines()
    assert lines[-1].split() == ["report", str(folder / "report.html")]
    count = {status: sum(check["status"] == status for check in checks) for status in ("pass", "flag", "fail")}
    assert lines[-2] == f"checks  {count['pass']} passed, {count['flag']} to look at, {count['fail']} failed"
    for check in checks:
        shown = [line for line in lines if line.startswith(check["status"]) and f" {check['id']} " in line]
        assert len(shown) == (check["status"] in ("flag", "fail")), check
    curves = json.loads((folder / "curves.json").read_text())
    assert len(curves["images"]) == 6 and [s["model"] for s in curves["subjects"]] == ["clip"]
    page = (folder / "report.html").read_text()
    assert 'id="checks"' in page and 'id="curves"' in page
    again = run("report", folder)
    assert again.out == ran.out and (folder / "report.html").read_text() == page


@pytest.mark.parametrize(("status", "code"), [("pass", 0), ("not applicable", 0), ("flag", 3), ("fail", 3)])
def test_strict_ends_with_3_if_a_check_speaks(
    run: Run,
    house: Path,
    auditing: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: Status,
    code: int,
) -> None:
    def checked(*_: Any, report: Any) -> list[Check]:
        report(Progress(1, 1, "S7"))
        checks = [found("S1", "", "pass", 0, "Fine."), found("S7", "clip/cosine", status, 0.25, "Look.")]
        content = {"format": FORMAT, "checks": [asdict(check) for check in checks]}
        (tmp_path / "audit" / FILE).write_text(json.dumps(content))
        return checks

    monkeypatch.setattr("robustree.cli.audit.run_checks", checked)
    words = [word for word in auditing if word != "--no-checks"]
    ran = run("audit", house / "clip", *words, "--trees", house / "tree.json", "--gallery", 0, "--strict")
    assert ran.code == code
    shown = f"{status:<7}S7 larger eps, fewer survivors  clip/cosine 0.25"
    assert (shown in ran.out) == (status in ("flag", "fail"))
    assert ("not applicable: S7" in ran.out) == (status == "not applicable")
    assert (tmp_path / "audit" / "report.html").is_file()


def test_a_report_is_rebuilt_without_torch(run: Run, house: Path, auditing: list[object], tmp_path: Path) -> None:
    assert run("audit", house / "clip", *auditing, "--trees", house / "tree.json").code == 0
    folder = tmp_path / "audit"
    before = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    script = (
        f"import sys\nfrom robustree.cli import main\nassert main(['report', {str(folder)!r}]) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)
    assert (folder / "report.html").read_bytes() == before


def test_a_report_of_nothing(run: Run, tmp_path: Path) -> None:
    ran = run("report", tmp_path)
    assert (ran.code, ran.err) == (
        2,
        f"error: {tmp_path / 'forest.json'} does not exist: give the folder into which the audit wrote.\n",
    )
