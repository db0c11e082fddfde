"""Completion in the shells themselves; zsh and fish where they are installed."""

from __future__ import annotations

import ast
import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from robustree.cli import COMMANDS, main
from tests.cli.conftest import Run


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `_robustree`, the script of zsh by the name it looks for, and those of bash and fish."""
    folder = tmp_path_factory.mktemp("completion")
    for shell, name in (("bash", "bash"), ("zsh", "_robustree"), ("fish", "fish")):
        with (folder / name).open("w") as file, pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdout", file)
            assert main(["completion", shell]) == 0
    return folder


def in_bash(scripts: Path, *words: str) -> list[str]:
    """What bash offers for the last word."""
    call = f'source {scripts / "bash"}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _robustree; '
    call += 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", call, "bash", "robustree", *words], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.split()


def test_bash_knows_every_command_and_its_parts(scripts: Path) -> None:
    assert in_bash(scripts, "") == ["-h", "--help", *sorted(name for name, _ in COMMANDS)]
    assert in_bash(scripts, "lea") == ["leaderboard"]
    assert in_bash(scripts, "tree", "c") == ["check", "cluster", "compare"]
    assert in_bash(scripts, "harden", "hierarchical", "--prec") == ["--precision"]
    assert sorted(in_bash(scripts, "harden", "hierarchical", "--precision", "")) == ["bf16", "fp32"]
    assert "--threat.eps" in in_bash(scripts, "audit", "nano", "--")


def test_where_nothing_is_known_bash_takes_files(scripts: Path) -> None:
    assert in_bash(scripts, "audit", "my_mod") == []
    call = f"source {scripts / 'bash'}; complete -p robustree"
    done = subprocess.run(["bash", "-c", call], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:3] == ["complete", "-o", "default"]


def test_the_options_are_those_of_the_help(scripts: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = re.findall(r"^COMPLETION_SPEC = (.*)$", (scripts / "bash").read_text(), flags=re.MULTILINE)
    commands = ast.literal_eval(line)["subcommands"]
    for words in (["audit"], ["harden", "tecoa"], ["tree", "llm"]):
        with pytest.raises(SystemExit):
            run(*words, "--help")
        told = capsys.readouterr().out
        known = {"subcommands": commands}
        for word in words:
            known = known["subcommands"][word]
        flags = {flag for option in known["options"] for flag in option["flags"] if flag.startswith("--")}
        assert flags == set(re.findall(r"(?<![\w-])--[a-z][\w.-]+", told)) - {"--catalog"}
        assert not any("\n" in option["description"] for option in known["options"])


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish(scripts: Path) -> None:
    call = f'source {scripts / "fish"}; complete -C "robustree lea"; complete -C "robustree data c"'
    done = subprocess.run(["fish", "--no-config", "-c", call], capture_output=True, text=True, check=True)
    assert {"leaderboard", "check"} <= {line.split("\t")[0] for line in done.stdout.splitlines()}


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh(scripts: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe("zsh", ["zsh", "-f", "-i"], os.environ | {"PS1": "$ ", "TERM": "dumb"})
    try:
        os.write(terminal, f"fpath=({scripts} $fpath); autoload -U compinit; compinit -D -u; echo re''ady\n".encode())
        assert "ready" in read_until(terminal, "ready")
        os.write(terminal, b"robustree lea\t")
        assert "leaderboard" in read_until(terminal, "leaderboard")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(terminal)


def read_until(terminal: int, wanted: str, seconds: float = 10.0) -> str:
    """What a terminal shows until it shows what is wanted, or the time is over."""
    shown, end = "", time.monotonic() + seconds
    while wanted not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
    return shown


def test_another_shell_is_refused(run: Run) -> None:
    ran = run("completion", "tcsh")
    assert ran.code == 2 and "bash" in ran.err and ran.err.count("\n") == 1
