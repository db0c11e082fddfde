"""`robustree completion SHELL`: the script with which a shell completes commands, options and choices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass
from functools import reduce
from importlib import import_module
from operator import or_
from typing import Annotated, Any, Literal

import tyro

from robustree.cli import COMMANDS
from robustree.cli.parsing import completion, parse

FILES = {
    "bash": """
_robustree() { _tyro_robustree "$@"; [[ -n "${COMPREPLY[0]}" ]] || COMPREPLY=(); }
complete -o default -F _robustree robustree""",
    "zsh": " || _files",
    "fish": """
complete --command robustree --condition 'not string match --quiet -- "-*" (commandline -ct)' --force-files""",
}
"""What follows tyro's script, which knows options only, so that words without any other completion are files."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which shell."""

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """The shell that shall complete."""


def run(arguments: Sequence[str]) -> int:
    options = parse(Options, arguments, command="completion", about="Print the script that makes a shell complete.")
    script = completion(_every_command(), options.shell).rstrip("\n")
    print("\n".join(_in_one_line(line) for line in script.split("\n")) + FILES[options.shell])
    return 0


def _in_one_line(line: str) -> str:
    """Shells take each line of a description for one more candidate."""
    return re.sub(r"\\+n", " ", line) if line.startswith("COMPLETION_SPEC = ") else line


def options_of(name: str) -> Any:
    """What a command parses into: `Command`, a union of sub-commands, where its module has one, else `Options`."""
    module = import_module(f"robustree.cli.{name}")
    return module.Command if hasattr(module, "Command") else module.Options


def _every_command() -> Any:
    """The options of all commands as one union."""
    kinds = []
    for name, _ in COMMANDS:
        kind = options_of(name)
        if not isinstance(kind, type):  # a union of sub-commands is no command by itself, but may be a field of one
            kind = make_dataclass(name, [("command", tyro.conf.OmitSubcommandPrefixes[kind])])
        kinds.append(Annotated[kind, tyro.conf.subcommand(name)])
    return reduce(or_, kinds)
