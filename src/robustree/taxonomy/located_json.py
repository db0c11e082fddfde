"""JSON in which every string knows its line, so that errors about a tree can point into its file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from robustree.taxonomy.nested import MAX_DEPTH, LocatedName

MAX_BYTES = 32 * 1024**2
"""The largest tree file that is read."""

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}\n]', re.DOTALL)
_MAX_BRACKETS = 2 * (MAX_DEPTH + 4)


class _Pairs(list[tuple[str, object]]):
    """An object of the file with its keys in order, also those that occur twice."""


def read_text(path: Path) -> str:
    """The text of a UTF-8 file of at most `MAX_BYTES`; ValueError if it is missing, too large, not UTF-8."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{path}: the file has {size} bytes, but a tree file has at most {MAX_BYTES}: split it.")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: the file cannot be read ({error.strerror}): check the path.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: the file is not UTF-8 text: save it as UTF-8.") from error


def parse(text: str, where: str) -> Json:
    """The JSON value of a text; `where` names the text in errors.

    Raises ValueError for a syntax error (line and column), a key that occurs twice, or a nesting deeper
    than any tree of `MAX_DEPTH` nodes needs.
    """
    lines = _string_lines(text, where)
    try:
        value = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}): correct it there."
        ) from error
    except ValueError as error:
        raise ValueError(f"{where}: not JSON ({error}): write names and whole numbers only.") from error
    return _locate(value, iter(lines), where, "")


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"the constant {constant}")


def _string_lines(text: str, where: str) -> list[int]:
    """The line of every string in document order; refuses nesting too deep for the parser."""
    lines: list[int] = []
    line, depth = 1, 0
    for token in _TOKEN.finditer(text):
        first = token.group()[0]
        if first == "\n":
            line += 1
        elif first == '"':
            lines.append(line)
            line += token.group().count("\n")
        elif first in "[{":
            depth += 1
            if depth > _MAX_BRACKETS:
                raise ValueError(f"{where}, line {line}: the nesting is deeper than {MAX_DEPTH} nodes: flatten it.")
        else:
            depth -= 1
    return lines


def _locate(value: object, lines: Iterator[int], where: str, inside: str) -> Json:
    if isinstance(value, str):
        return LocatedName(value, next(lines))
    if isinstance(value, _Pairs):
        located: dict[str, Json] = {}
        for key, raw in value:
            name = LocatedName(key, next(lines))
            below = _locate(raw, lines, where, name if not inside else f"{inside}/{name}")
            if name in located:
                if inside == "parents":
                    what = f"{name!r} has two parents, {located[name]!r} and {below!r}"
                else:
                    what = f"the key {name!r} occurs twice in one object"
                raise ValueError(f"{where}, line {name.line}: {what}: remove one of the two.")
            located[name] = below
        return located
    if isinstance(value, list):
        return [_locate(entry, lines, where, f"{inside}/") for entry in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    raise TypeError(f"the JSON parser returned a {type(value).__name__}")
