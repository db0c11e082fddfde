"""Lists of classes: shipped ones by name, text files, JSON lists and tree files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from robustree.cli.parsing import nearest
from robustree.taxonomy import leaves_of

_SHIPPED = files("robustree").joinpath("data", "classes")
_EMOJI = files("robustree").joinpath("data", "quickstart", "classes.json")


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """Classes in their order, and a text with their WordNet synsets where the list is shipped with one."""

    names: tuple[str, ...]
    synsets: str | None = None


def shipped_lists() -> tuple[str, ...]:
    """The names of the shipped lists."""
    lists = (Path(str(file)).name for file in _SHIPPED.iterdir() if file.name.count(".") == 1)
    return ("emoji", *sorted(name.removesuffix(".txt") for name in lists if name.endswith(".txt")))


def open_classes(where: str) -> ClassList:
    """A list of at least two different classes: shipped, or in a file.

    Raises:
        ValueError: there is no such list or file, or it holds no list of classes.
    """
    path, shipped = Path(where), shipped_lists()
    if where == "emoji":
        content = json.loads(_EMOJI.read_text(encoding="utf-8"))
        return ClassList(names=tuple(entry["name"] for entry in content["classes"]))
    if where in shipped:
        synsets = _SHIPPED.joinpath(f"{where}.wnids.txt")
        return ClassList(
            names=tuple(_SHIPPED.joinpath(f"{where}.txt").read_text(encoding="utf-8").splitlines()),
            synsets=synsets.read_text(encoding="utf-8") if synsets.is_file() else None,
        )
    if not path.is_file():
        raise ValueError(
            f"there is no list of classes {where!r}{nearest(where, shipped)}: give a file with one class a line, "
            f"a tree file, or one of {', '.join(shipped)}."
        )
    names = leaves_of(path) if _is_tree(path) else read_classes(path)
    if len(names) < 2:
        raise ValueError(f"{where!r} holds {len(names)} classes; a tree groups at least two: write one a line.")
    twice = next((name for position, name in enumerate(names) if name in names[:position]), None)
    if twice is not None:
        raise ValueError(f"the class {twice!r} occurs twice in {where!r}: remove or rename one of the two.")
    return ClassList(names=names)


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names from a file: a JSON list of names, or one name a line.

    Raises:
        ValueError: no such file, not text, or not a list of names.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = json.loads(text) if path.suffix == ".json" else [line.strip() for line in text.splitlines()]
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{str(path)!r} is no list of classes ({error}): write one name a line.") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'{str(path)!r} holds no list of names: write ["cat", "dog"], or one name a line.')
    return tuple(name for name in names if name)


def _is_tree(path: Path) -> bool:
    """Whether a file is a JSON object, so a tree, and not a list."""
    return path.suffix == ".json" and path.read_bytes().lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"
