"""docs/commands.md has a section for every command, in the order of the help, and its examples parse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from robustree.cli import COMMANDS
from robustree.cli.completion import options_of
from robustree.cli.parsing import parse

PAGE = (Path(__file__).parents[1] / "docs" / "commands.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))


def test_every_command_has_its_section() -> None:
    assert list(SECTIONS) == [name for name, _ in COMMANDS]


@pytest.mark.parametrize("name", [name for name, _ in COMMANDS])
def test_the_examples_are_accepted(name: str) -> None:
    examples = re.findall(r"^\$ (robustree .*)$", SECTIONS[name], flags=re.MULTILINE)
    assert examples
    for example in examples:
        _, command, *words = shlex.split(example)
        assert command == name
        parse(options_of(name), words, command=name, about="")


@pytest.mark.parametrize("name", [name for name, _ in COMMANDS])
def test_options_that_the_text_names_exist(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(options_of(name), ["tecoa", "--help"] if name == "harden" else ["--help"], command=name, about="")
    told = capsys.readouterr().out
    for option in re.findall(r"`(--[a-z-]+)", SECTIONS[name]):
        assert option in told
