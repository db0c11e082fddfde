"""The leaderboard: figures from the rows alone, comparable audits together, others apart, refusals in one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustree.auditing.checks.check import FILE, FORMAT, found
from robustree.auditing.metrics import figures
from robustree.auditing.report.leaderboard import write_leaderboard
from tests.auditing.page import parsed

Writer = Callable[..., Path]
Change = Callable[[dict[str, Any]], None]


def edit(audit: Path, change: Change) -> None:
    header = json.loads((audit / "audit.json").read_text())
    change(header)
    (audit / "audit.json").write_text(json.dumps(header))


def rows_of(audit: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (audit / "rows.jsonl").read_text().splitlines()]


def keep_rows(audit: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    lines = [json.dumps(row) + "\n" for row in rows_of(audit) if keep(row)]
    (audit / "rows.jsonl").write_text("".join(lines))


def write_checks(audit: Path, **statuses: Any) -> None:
    content = [vars(found(id, "tecoa/cosine", status, None, "as measured")) for id, status in statuses.items()]
    (audit / FILE).write_text(json.dumps({"format": FORMAT, "checks": content}))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, audit_folder: Writer) -> Path:
    """One whole synthetic audit, described as `audit` describes it."""
    audit = audit_folder(tmp_path_factory.mktemp("board") / "a", gallery=False, images=44)

    def complete(header: dict[str, Any]) -> None:
        header["attacks"]["square-500"] = {"attack": {"attack": "Square"}, "loss": "margin"}
        for name, head in header["heads"].items():
            head["weights"] = hashlib.sha256(name.encode()).hexdigest()

    edit(audit, complete)
    return audit


@pytest.fixture
def board(first: Path, tmp_path: Path) -> Path:
    """A folder with one audit, `a`."""
    shutil.copytree(first, tmp_path / "board" / "a")
    return tmp_path / "board"


def test_the_figures_are_those_of_all_rows_together(board: Path, forest: Any) -> None:
    """The models of one audit, split over two folders, rank as in one."""
    shutil.copytree(board / "a", board / "b")
    for name, models in (("a", {"clip", "tecoa"}), ("b", {"hrft"})):
        keep_rows(board / name, lambda row, models=models: row["model"] in models)
        edit(
            board / name,
            lambda h, models=models: h.update(heads={k: v for k, v in h["heads"].items() if k.split("/")[0] in models}),
        )
    (both,) = write_leaderboard(board, board / "page.html")
    expected = figures(rows_of(board / "a") + rows_of(board / "b"), forest)
    wanted = {(m["model"], m["head"]): m for m in expected["models"]}
    assert len(both.lines) == len(wanted) == 4
    for line in both.lines:
        subject = line.entry.subject
        assert line.figures == wanted[subject.model, subject.head] | {"model": line.name, "spearman": None}
    robust = [line.robust["value"] for line in both.lines if line.robust]
    assert robust == sorted(robust, reverse=True) and [line.rank for line in both.lines] == [1, 2, 3, 4]
    best = expected["headline"]["strongest"]
    assert (both.lines[0].name, both.lines[0].entry.subject.head) == (best["model"], best["head"])
    gaps = {(p["b"]["model"], p["b"]["head"]): p["difference"] for p in expected["comparisons"]}
    assert gaps == {(x.name, x.entry.subject.head): x.behind["difference"] for x in both.lines if x.behind}


def test_a_stored_figure_is_never_read(board: Path) -> None:
    write_leaderboard(board, board / "one.html")
    (board / "a" / "figures.json").write_text('{"models": "all perfect"}')
    write_leaderboard(board, board / "two.html")
    assert (board / "one.html").read_bytes() == (board / "two.html").read_bytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h: h["threat"].update(eps=8 / 255), "another eps"),
        (lambda h: h["attacks"]["pgd-20"]["attack"].update(steps=40), "other attacks"),
        (lambda h: h.update(stop=True), "attacks that end at the first success"),
    ],
)
def test_what_may_not_be_compared_stands_apart(board: Path, change: Change, reason: str) -> None:
    shutil.copytree(board / "a", board / "b")
    edit(board / "b", change)
    boards = write_leaderboard(board, board / "page.html")
    assert [len(group.lines) for group in boards] == [4, 4]
    assert boards[0].apart == [] and boards[1].apart == [reason]
    page = (board / "page.html").read_text()
    assert f"Not ranked with group 1, because of {reason}." in page and "fall into 2 groups" in page


def test_models_that_met_fewer_attacks_stand_apart(board: Path) -> None:
    keep_rows(board / "a", lambda row: row["model"] != "clip" or row["attack"] != "square-500")
    boards = write_leaderboard(board, board / "page.html")
    assert [[line.name for line in group.lines] for group in boards] == [["hrft", "hrft", "tecoa"], ["clip"]]


def test_one_outcome_is_one_line_and_one_name_of_two_models_is_two(board: Path) -> None:
    shutil.copytree(board / "a", board / "again")
    shutil.copytree(board / "a", board / "other")
    edit(board / "other", lambda h: h["heads"]["clip/cosine"].update(weights="f" * 64))
    (both,) = write_leaderboard(board, board / "page.html")
    assert len(both.lines) == 5
    audits = {line.name: line.entry.audits for line in both.lines}
    assert audits["clip in a"] == ("a", "again") and audits["clip in other"] == ("other",)
    assert audits["tecoa"] == ("a", "again", "other")


def test_a_failed_check_costs_the_rank(board: Path) -> None:
    write_checks(board / "a", S11="fail", S8="flag", S1="pass")
    (group,) = write_leaderboard(board, board / "page.html")
    assert [line.rank for line in group.lines] == [1, 2, 3, None]
    assert group.lines[-1].name == "tecoa" and group.lines[-1].entry.status == "fail"
    page = (board / "page.html").read_text()
    assert "1 passed, 1 flagged, 1 failed" in page and "S11 no black box does better" in page
    assert page.index("S11 no black") < page.index("S8 twice")
    write_checks(board / "a", S1="pass", S8="flag")
    (group,) = write_leaderboard(board, board / "page.html")
    assert {line.name: line.entry.status for line in group.lines}["tecoa"] == "flag"


def test_clean_images_alone_rank_nobody(board: Path) -> None:
    keep_rows(board / "a", lambda row: row["attack"] == "clean")
    (group,) = write_leaderboard(board, board / "page.html")
    assert [line.rank for line in group.lines] == [None] * 4
    page = (board / "page.html").read_text()
    assert "Nothing here can be ranked." in page and "No attack was run, so nothing is ranked." in page


def test_the_page_is_whole_in_itself_and_can_be_verified(board: Path) -> None:
    write_checks(board / "a", S1="pass")
    write_leaderboard(board, board / "page.html")
    text = (board / "page.html").read_text()
    page = parsed(text)
    ids = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.seen:
        for name in ("src", "href"):
            link = attributes.get(name)
            assert link is None or link == "data:," or (link.startswith("#") and link[1:] in ids)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|<iframe", text)
    assert not re.search(r"https?://", text)
    for name in ("rows.jsonl", "checks.json"):
        assert hashlib.sha256((board / "a" / name).read_bytes()).hexdigest() in text
    header = json.loads((board / "a" / "audit.json").read_text())
    assert header["forest"] in text and all(head["weights"] in text for head in header["heads"].values())
    assert 'aria-sort="descending"' in text


def test_hostile_names_stay_text(board: Path) -> None:
    nasty = "<script>alert(1)</script>"
    for name in ("rows.jsonl", "audit.json"):
        path = board / "a" / name
        path.write_text(path.read_text().replace('"tecoa', json.dumps(nasty)[:-1]))
    write_leaderboard(board, board / "page.html")
    page = (board / "page.html").read_text()
    assert "alert(1)" in page and nasty not in page


def _forget(header: dict[str, Any]) -> None:
    del header["images"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda a: (a / "audit.json").unlink(), "audit.json does not exist"),
        (lambda a: (a / "rows.jsonl").unlink(), "holds no rows.jsonl"),
        (lambda a: edit(a, _forget), "is damaged or of another version"),
        (lambda a: keep_rows(a, lambda row: row["model"] != "hrft"), "hrft/hyperbolic has no rows yet: finish it"),
        (lambda a: keep_rows(a, lambda row: row["image"] != "twemoji/007" or row["attacked"] != "all"), "finish the"),
        (lambda a: keep_rows(a, lambda row: row["image"] != "twemoji/007"), "of 43 images, audit.json says 44"),
        (lambda a: edit(a, lambda h: h["threat"].update(eps=1 / 255)), "eps 0.0039216, but a row's image is 0.015686"),
        (lambda a: edit(a, lambda h: h["attacks"].pop("square-500")), "does not describe the attack square-500"),
        (lambda a: edit(a, lambda h: h["heads"].pop("clip/cosine")), "does not name clip/cosine"),
        (lambda a: edit(a, lambda h: h.update(forest="0" * 64)), "keep the forest that the audit wrote"),
        (lambda a: (a / FILE).write_text("{"), "cannot be read"),
    ],
)  # fmt: skip
def test_an_audit_that_cannot_be_ranked_is_named(board: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(board / "a")
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        write_leaderboard(board, board / "page.html")
    assert "board/a" in str(refused.value) and "\n" not in str(refused.value)
    assert not (board / "page.html").exists()


def test_a_folder_without_audits(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no audit: write some with robustree audit MODEL --output"):
        write_leaderboard(tmp_path, tmp_path / "page.html")
    with pytest.raises(ValueError, match="is no folder"):
        write_leaderboard(tmp_path / "nowhere", tmp_path / "page.html")


def test_the_command_needs_no_torch_and_takes_one_audit_too(board: Path) -> None:
    script = (
        "import sys\nfrom robustree.cli import main\n"
        f"assert main(['leaderboard', {str(board / 'a')!r}]) == 0\nassert 'torch' not in sys.modules"
    )
    wide = os.environ | {"COLUMNS": "120"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=wide)
    assert done.stdout.splitlines()[-1] == f"leaderboard  {board / 'a' / 'leaderboard.html'}"
    assert "hrft hyperbolic · a" in done.stdout
