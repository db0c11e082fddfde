"""From words to frozen option records (tyro), with refusals in one line."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import tyro

_FRAME = re.compile(r"\x1b\[[0-9;]*m|[╭╮╰╯│─━┃┏┓┗┛├┤]")
_RULE = re.compile(r"-{8,}")
_REPEATED = ("For full helptext", "Argument helptext")
_TITLES = {"missing subcommand", "unrecognized options", "required options", "invalid choice", "missing argument"}
_TITLES |= {"value error", "parsing error"}
_VALUE = re.compile(r"Error parsing (\S+): (.*)", re.DOTALL)
_INTEGER = re.compile(r".*invalid literal for int\(\) with base 10: (.*)", re.DOTALL)
_MISSING = re.compile(r"Missing from robustree [\w -]+?: (-?-?\S+).*\(required\)")
_WIDE = "400"  # columns while a refusal is formatted: its lines are not broken inside words


def parse(options: Any, arguments: Sequence[str], *, command: str, about: str) -> Any:
    """The record that `arguments` describe; `options` is a frozen dataclass or a union of them (sub-commands).

    Raises:
        ValueError: the words are refused; one line says why.
        SystemExit: `--help` was among the words, and the help has been printed.
    """
    wanted = _wanted(f"robustree {command}", about)
    if {"-h", "--help"} & set(arguments):
        return tyro.cli(options, args=arguments, **wanted)
    refusal = io.StringIO()
    try:
        with _columns(_WIDE), contextlib.redirect_stderr(refusal), contextlib.redirect_stdout(refusal):
            return tyro.cli(options, args=arguments, **wanted)
    except SystemExit as ending:
        raise ValueError(_flat(refusal.getvalue(), command)) from ending


def completion(options: Any, shell: str) -> str:
    """The script with which a shell completes `robustree`; `options` as in `parse`, `shell` one that tyro knows."""
    script = io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        tyro.cli(options, args=["--tyro-print-completion", shell], **_wanted("robustree", ""))
    return script.getvalue()


def nearest(value: str, choices: Sequence[str]) -> str:
    """' (did you mean ...?)' for the choice that looks most like `value`; nothing if none does."""
    found = difflib.get_close_matches(value.casefold(), [choice.casefold() for choice in choices], n=1)
    return next((f" (did you mean {c!r}?)" for c in choices if found and c.casefold() == found[0]), "")


def fraction(text: str) -> float:
    """A number, or a fraction such as 4/255.

    Raises:
        ValueError: neither.
    """
    try:
        return float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise ValueError(f"{text!r} is no number: write 0.0157 or a fraction such as 4/255.") from error


def _wanted(program: str, about: str) -> dict[str, Any]:
    return {
        "prog": program,
        "description": about,
        "registry": _registry(),
        "config": (tyro.conf.DisallowNone,),
    }


def _registry() -> tyro.constructors.ConstructorRegistry:
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def number(kind: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[float] | None:
        if kind.type is not float:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="NUMBER",
            instance_from_str=lambda words: fraction(words[0]),
            is_instance=lambda value: isinstance(value, float | int),
            str_from_instance=lambda value: [f"{value:g}"],
        )

    return registry


def _flat(box: str, command: str) -> str:
    """The text of tyro's framed message as one sentence, without its frame, title, footer and repeated help."""
    words = " ".join(_FRAME.sub(" ", box).split())
    parts = [part.strip(" .:;") for part in _RULE.split(words)]
    parts = [part for part in parts if part.casefold() not in _TITLES | {""} and not part.startswith(_REPEATED)]
    found = _MISSING.sub(r"\1 is missing", "; ".join(dict.fromkeys(parts)))
    value = _VALUE.match(found)
    if value is None:
        return f"{found[:1].lower() + found[1:] or 'the options were refused'}; see robustree {command} --help."
    option, reason = value.groups()
    reason = _INTEGER.sub(r"\1 is no whole number", reason)
    return f"{option}: {reason}." if option.startswith("--") else f"{reason}."


@contextlib.contextmanager
def _columns(width: str) -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = width
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
