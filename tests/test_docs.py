"""The documentation names only what exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from robustree.auditing.checks.catalogue import RULES

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
NAMED = re.compile(r"`((?:tests|benchmarks|docs|examples|recipes)/[\w./-]+)(?:::(\w+))?`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_and_tests_exist(page: Path) -> None:
    for name, test in NAMED.findall(page.read_text(encoding="utf-8")):
        path = ROOT / name
        assert path.exists(), f"{page.name} names {name}"
        if test:
            functions = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
            assert test in functions, f"{page.name} names {name}::{test}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_page_of_checks_says_what_the_code_says() -> None:
    page = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    assert len(RULES) == 27
    for number, (title, rule) in RULES.items():
        assert f"| {number} | {title} | {rule} |" in page
