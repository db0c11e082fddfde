"""What a language model answered, read strictly: a value, or the faults that are named to the model."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

_READABLE = re.compile(r"[^\W\d_][\w ,'’&()/.-]*")
_MOST_WORDS = 7
_VAGUE = frozenset(["other", "others", "misc", "miscellaneous", "various", "unknown", "stuff", "uncategorized", "etc"])
_SHOWN = 12
_MOST_STARTS = 20
"""Brackets from which JSON is tried: prose before an answer holds few."""


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys in order, also those that occur twice."""


class Names:
    """Names that are found as written, or by differences that leave no doubt: case, blanks, plural."""

    def __init__(self, names: Sequence[str]):
        self._exact = {name: name for name in names}
        alike: dict[str, list[str]] = {}
        for name in names:
            alike.setdefault(_bare(name), []).append(name)
        self._bare = {bare: found[0] for bare, found in alike.items() if len(found) == 1}

    def find(self, text: object) -> str | None:
        """The name that is meant; None if there is none, or a doubt."""
        return self._exact.get(text) or self._bare.get(_bare(text)) if isinstance(text, str) else None


def read_groups(
    text: str, classes: Sequence[str], *, levels: int, most: int
) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """The paths of the finest groups, coarse to fine, and the faults; the paths hold only where there are none.

    The answer is a list of names for one level, and objects around such lists for more."""
    content = _json_in(text)
    if content is None:
        return (), ("It holds no JSON.",)
    paths: list[tuple[str, ...]] = []
    if not _collect(content, levels, (), paths):
        return (), (f"The JSON must have {levels} levels of group names, in the form that was asked for.",)
    nodes = [node for depth in range(levels) for node in dict.fromkeys(path[: depth + 1] for path in paths)]
    faults = []
    leaves = {name.casefold() for name in classes}
    written = [node[-1] for node in nodes]
    folded = [name.casefold() for name in written]
    twice = [name for position, name in enumerate(written) if folded[position] in folded[:position]]
    twice += [path[-1] for position, path in enumerate(paths) if path in paths[:position]]
    for names, fault in (
        ([name for name in written if not _is_readable(name)], "These are no readable group names"),
        (twice, "These names are given to more than one group"),
        ([name for name in written if name.casefold() in leaves], "These groups are called like a class"),
    ):
        if names:
            faults.append(f"{fault}: {_some(names)}.")
    if not 2 <= len(paths) <= most:
        faults.append(f"It has {len(paths)} groups at the finest level; use between 2 and {most}.")
    return tuple(paths), tuple(faults)


def read_assignment(text: str, classes: Sequence[str], groups: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The group of every class, and the faults; classes that were not asked about are left out."""
    content = _json_in(text)
    if not isinstance(content, _Pairs):
        return {}, ("It holds no JSON object.",)
    known, allowed = Names(classes), Names(groups)
    chosen: dict[str, str] = {}
    unknown: dict[str, str] = {}
    torn: dict[str, None] = {}
    for key, value in content:
        name, group = known.find(key), allowed.find(value)
        if name is None:
            continue
        if group is None:
            unknown[name] = f"{name}: {value if isinstance(value, str) else type(value).__name__}"
        elif chosen.setdefault(name, group) != group:
            torn[name] = None
    missing = [name for name in classes if name not in chosen and name not in unknown]
    faults = [
        f"{fault}: {_some(names)}."
        for names, fault in (
            (missing, "These classes are missing"),
            ([*unknown.values()], "These values are none of the groups"),
            ([*torn], "These classes have more than one group"),
        )
        if names
    ]
    return chosen, tuple(faults)


def _json_in(text: str) -> Any:
    """The first JSON list or object of a text, after a model's thinking aloud; None if there is none."""
    said = text.rpartition("</think>")[2]
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs)
    for start in islice(re.finditer(r"[\[{]", said), _MOST_STARTS):
        try:
            return decoder.raw_decode(said, start.start())[0]
        except (ValueError, RecursionError):
            continue
    return None


def _collect(content: Any, levels: int, above: tuple[str, ...], paths: list[tuple[str, ...]]) -> bool:
    """Put the paths below `above` into `paths`; False where the form is not the one that was asked for."""
    if levels == 1:
        if isinstance(content, _Pairs) or not isinstance(content, list):
            return False
        if not all(isinstance(name, str) for name in content):
            return False
        paths.extend((*above, _tidy(name)) for name in content)
        return True
    if not isinstance(content, _Pairs):
        return False
    return all(_collect(below, levels - 1, (*above, _tidy(name)), paths) for name, below in content)


def _is_readable(name: str) -> bool:
    words = name.casefold().replace(",", " ").split()
    return bool(_READABLE.fullmatch(name)) and len(words) <= _MOST_WORDS and not _VAGUE & set(words)


def _tidy(text: str) -> str:
    return " ".join(text.replace("_", " ").split())


def _bare(text: str) -> str:
    """A name without the differences that mean nothing: case, underscores, quotes, the ending of a plural."""
    plain = _tidy(text).strip(" .\"'`").casefold()
    for ending, single in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x"), ("s", "")):
        if plain.endswith(ending) and not plain.endswith("ss"):
            return plain.removesuffix(ending) + single
    return plain


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
