"""The tutorials run as printed: Python blocks, `robustree` commands and the files that a page shows, in their order."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from robustree.cli import main

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / "your-own-labels.md", *sorted((DOCS / "tutorials").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
FILE = "tree.json"  # what a page's JSON block is called in its text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType(page.stem.replace("-", "_"))
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where dataclasses look for their annotations
    text = page.read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    for language, block in blocks:
        if language == "python":
            exec(compile(block, str(page), "exec"), vars(module))
        elif language == "json":
            assert f"`{FILE}`" in text
            Path(FILE).write_text(block, encoding="utf-8")
        elif language == "bash":
            subprocess.run(["bash", "-n"], input=block, text=True, check=True)  # a job script: only its syntax
        else:
            assert language == "console", f"{page.name} has a block in {language}, which nothing runs"
            for line in block.strip().splitlines():
                command, *arguments = shlex.split(line)
                if command == "torchrun":
                    launch = [sys.executable, "-m", "torch.distributed.run", *arguments]
                    done = subprocess.run(launch, capture_output=True, text=True, check=False, timeout=240)
                    assert done.returncode == 0, f"{line}\n{done.stderr}"
                else:
                    assert command == "robustree"
                    assert main(arguments) == 0, f"{line}\n{capsys.readouterr().err}"
    assert len(blocks) >= 2


def test_the_aimed_attack_of_the_first_tutorial_gets_there(capsys: pytest.CaptureFixture[str]) -> None:
    page = (DOCS / "tutorials" / "attack-one-image.md").read_text(encoding="utf-8")
    names: dict = {}
    for _, block in BLOCK.findall(page):
        exec(compile(block, "attack-one-image.md", "exec"), names)
    clean, *attacked = capsys.readouterr().out.strip().splitlines()
    assert clean.startswith("['cat', ") and not attacked[0].startswith("['cat'")
    assert attacked[1].split(", ")[-1] != clean.split(", ")[-1]  # the coarsest level
    assert attacked[2].endswith("True")
