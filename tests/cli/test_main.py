"""The door: help and version without heavy imports, unknown commands, refusals in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from robustree import __version__
from robustree.cli import COMMANDS, main
from tests.cli.conftest import Run

HEAVY = ("torch", "transformers", "accelerate", "numpy")


def _loaded_by(*words: str) -> tuple[int, set[str]]:
    """The exit code of a command line in a fresh process, and the heavy modules it has imported."""
    script = (
        "import sys\nfrom robustree.cli import main\n"
        f"code = main({list(words)!r})\nprint('loaded', code, *(m for m in {HEAVY!r} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    _, code, *modules = done.stdout.splitlines()[-1].split()
    return int(code), set(modules)


@pytest.mark.parametrize("words", [(), ("--help",), ("--version",), ("nonsense",)])
def test_the_door_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    code, modules = _loaded_by(*words)
    assert modules == set()
    assert code == (2 if words == ("nonsense",) else 0)


def test_trees_are_shown_and_checked_without_torch(house: Path) -> None:
    assert _loaded_by("tree", "show", "unicode") == (0, set())
    assert _loaded_by("tree", "check", str(house / "tree.json")) == (0, set())


def test_help_names_every_command(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    assert all(f"\n  {name} " in ran.out for name, _ in COMMANDS)
    assert max(map(len, ran.out.splitlines())) <= 80


def test_version(run: Run) -> None:
    assert run("--version").out == f"robustree {__version__}\n"


def test_module_runs_like_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "robustree", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"robustree {__version__}\n"


def test_unknown_command(run: Run) -> None:
    ran = run("hardn")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: there is no command 'hardn' (did you mean 'harden'?): "
        "the commands are quickstart, harden, audit, attack, misspell, classify, demo, tree, data, reproduce, report, "
        "leaderboard, convert, card, push, doctor, completion.\n"
    )


@pytest.mark.parametrize("command", [name for name, _ in COMMANDS])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main([command, "--help"])
    assert ending.value.code == 0
    assert f"robustree {command}" in capsys.readouterr().out


def test_methods_bring_their_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import fields

    from robustree.methods import AGFT, FARE, PMGAFT, Hierarchical, TeCoA

    methods = {"tecoa": TeCoA, "fare": FARE, "pmg-aft": PMGAFT, "agft": AGFT, "hierarchical": Hierarchical}
    for name, method in methods.items():
        with pytest.raises(SystemExit):
            main(["harden", name, "--help"])
        shown = capsys.readouterr().out
        assert all(f"--{field.name.replace('_', '-')}" in shown for field in fields(method))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--threat.eps", "4"], "--threat.eps: eps is 4; pixels are in [0, 1], so write 4/255, not 4."),
        (
            ["--threat.eps", "x"],
            "--threat.eps: eps is 'x'; write a fraction such as 4/255 or a number such as 0.0157.",
        ),
        (["--lr", "fast"], "--lr: 'fast' is no number: write 0.0157 or a fraction such as 4/255."),
        (["--steps", "ten"], "--steps: 'ten' is no whole number."),
        (["--vic", "-1"], "vic is -1.0; weights and radii are at least 0: 0 switches the part off."),
        (["--steps", "0"], "steps is 0; it counts from 1: give a positive number."),
    ],
)
def test_bad_values_are_refused_in_one_line(run: Run, tmp_path: Path, words: list[str], sentence: str) -> None:
    ran = run("harden", "hierarchical", "--output", tmp_path / "run", *words)
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {sentence}\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["harden", "tecoa"], ["--output is missing", "see robustree harden --help."]),
        (["harden", "tekoa"], ["tekoa", "tecoa, fare, pmg-aft, agft, hierarchical"]),
        (["harden"], ["{tecoa, fare, pmg-aft, agft, hierarchical}"]),
        (["harden", "hierarchical", "--output", "x", "--parents", "dirct"], ["'dirct'", "'--parents'", "'direct'"]),
        (["harden", "hierarchical", "--output", "x", "--vicc", "1"], ["--vicc", "--vic "]),
        (["audit", "nano", "--output", "x", "--threat.norm", "l7"], ["'l7'", "--threat.norm", "linf"]),
    ],
)
def test_bad_options_are_refused_in_one_line(run: Run, words: list[str], parts: list[str]) -> None:
    ran = run(*words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ") and ran.err.count("\n") == 1
    assert all(part in ran.err for part in parts)
    assert not set(ran.err) & set("╭│╰─\x1b")
