"""A label tree from a language model: first the groups, then the classes in chunks, every answer checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Protocol, TypeVar

from robustree.taxonomy.building.answers import read_assignment, read_groups
from robustree.taxonomy.building.chat import Answer, Messages
from robustree.taxonomy.nested import Nested, TreeSource, assemble
from robustree.taxonomy.sizing import partition

CORRECTIONS = 3
"""How often the model is told what is wrong with an answer before the build is refused."""
MOST_LEVELS = 4
_SHAPES = (
    'The JSON is a list of group names, such as ["water bird", "kitchen tool"].',
    "The JSON is an object from each coarse group to the list of its fine groups, such as "
    '{"animal": ["water bird", "insect"], "household thing": ["kitchen tool"]}.',
    "The JSON is an object of objects of lists, such as "
    '{"living thing": {"animal": ["water bird", "insect"], "plant": ["tree"]}}.',
    "The JSON is an object of objects of objects of lists, such as "
    '{"living thing": {"animal": {"bird": ["water bird", "bird of prey"]}}}.',
)

_Value = TypeVar("_Value")


class Asked(Protocol):
    """Whoever answers a conversation; `chat.Chat` is one."""

    def ask(self, messages: Messages) -> Answer: ...

    def forget(self, messages: Messages) -> None: ...


class _CutOffError(Exception):
    """The answer ended at the model's length limit."""


def language_tree(
    classes: Sequence[str],
    model: Asked,
    *,
    name: str = "language",
    levels: int = 2,
    chunk: int = 50,
    about: str = "",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> TreeSource:
    """The groups that a language model makes of the classes, in at most `levels` levels above them.

    One conversation names the groups; one for each `chunk` of classes gives every class its group, and is split where
    the answer was cut off. A fault is named to the model, up to `CORRECTIONS` times; differences of case and plural
    are mended here. Groups without classes are left out, and levels that say nothing new. `report(done, total)`:
    classes that have their group.

    Raises:
        ValueError: fewer than four classes, levels outside 1..4, no chunk, a model that does not answer, or answers
            that stay wrong; those are then forgotten, so that another run asks again.
    """
    if len(classes) < 4:
        raise ValueError(f"{len(classes)} classes need no groups: name at least four.")
    if not 1 <= levels <= MOST_LEVELS:
        raise ValueError(f"levels is {levels}; a language model is asked for 1 to {MOST_LEVELS}.")
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; it is a number of classes, from 1.")
    report(0, len(classes))
    paths = _ask_groups(classes, model, levels)
    groups = {path[-1]: path for path in paths}
    outline = "\n".join(" > ".join(path) for path in paths)
    chosen: dict[str, str] = {}
    waiting = [tuple(classes[start : start + chunk]) for start in range(0, len(classes), chunk)][::-1]
    while waiting:
        part = waiting.pop()
        try:
            chosen |= _ask_assignment(part, model, tuple(groups), outline)
        except _CutOffError as error:
            if len(part) == 1:
                raise ValueError(
                    f"the model's answer about {part[0]!r} alone is cut off: use another model."
                ) from error
            half = len(part) // 2
            waiting += [part[half:], part[:half]]
        report(len(chosen), len(classes))
    return TreeSource(name, _nested(classes, [groups[chosen[leaf]] for leaf in classes], levels), about=about)


def _ask_groups(classes: Sequence[str], model: Asked, levels: int) -> tuple[tuple[str, ...], ...]:
    most = max(3, len(classes) // 2)
    prompt = _prompt(
        "groups",
        classes="\n".join(classes),
        levels=str(levels),
        fewest=str(max(2, len(classes) // 40)),
        most=str(max(3, len(classes) // 4)),
        shape=_SHAPES[levels - 1],
    )
    try:
        return _settled(model, prompt, lambda text: read_groups(text, classes, levels=levels, most=most), "the groups")
    except _CutOffError as error:
        raise ValueError("the list of groups is cut off at the model's length limit: use another model.") from error


def _ask_assignment(classes: Sequence[str], model: Asked, groups: tuple[str, ...], outline: str) -> dict[str, str]:
    example = json.dumps({classes[0]: groups[0]}, ensure_ascii=False)
    prompt = _prompt("assign", groups=outline, classes="\n".join(classes), example=example)
    what = f"the classes from {classes[0]!r} to {classes[-1]!r}"
    return _settled(model, prompt, lambda text: read_assignment(text, classes, groups), what)


def _settled(model: Asked, prompt: str, read: Callable[[str], tuple[_Value, tuple[str, ...]]], what: str) -> _Value:
    """The value of the first answer without faults; each correction shows the model its last answer only."""
    asked: list[Messages] = []
    messages: Messages = (("user", prompt),)
    while True:
        answer = model.ask(messages)
        asked.append(messages)
        if not answer.complete:
            raise _CutOffError
        value, faults = read(answer.text)
        if not faults:
            return value
        if len(asked) > CORRECTIONS:
            for conversation in asked:
                model.forget(conversation)
            raise ValueError(
                f"the model's answer about {what} is wrong after {CORRECTIONS} corrections: {' '.join(faults)} "
                "Run again, or use another model."
            )
        messages = (("user", prompt), ("assistant", answer.text), ("user", _prompt("repair", faults=" ".join(faults))))


def _nested(classes: Sequence[str], paths: Sequence[tuple[str, ...]], levels: int) -> Nested:
    """The tree with the levels that say something new only."""
    number = {node: len(classes) + position for position, node in enumerate(dict.fromkeys(n for p in paths for n in p))}
    kept, below = [], tuple(range(len(classes)))
    for depth in reversed(range(levels)):
        groups = partition([number[path[depth]] for path in paths])
        if groups != below and len(set(groups)) > 1:
            kept.append(depth)
            below = groups
    if not kept:
        raise ValueError("the model puts all classes into one group, or each into its own: use another model.")
    chains = [[number[path[depth]] for depth in kept] for path in paths]
    return assemble(classes, chains, {position: node for node, position in number.items()})


def _prompt(file: str, **parts: str) -> str:
    """A prompt of `prompts/` with its {parts} filled in; names that hold braces are left as they are."""
    text = files("robustree.taxonomy.building").joinpath("prompts", f"{file}.txt").read_text(encoding="utf-8").strip()
    head, *rest = text.split("{")
    filled = [head]
    for piece in rest:
        name, _, after = piece.partition("}")
        filled += [parts[name], after]
    return "".join(filled)
