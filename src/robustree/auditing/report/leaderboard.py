"""The leaderboard of a folder of audits: one HTML page, made from their rows without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from robustree.auditing.leaderboard import Entry, Group, Proof, Terms, compared
from robustree.auditing.report import charts
from robustree.auditing.report.page import budget, dress, environment
from robustree.auditing.report.parts import GRAVE
from robustree.writing import write_whole

FILE = "leaderboard.html"
APART = {
    "forest": "other trees",
    "images": "other images",
    "eps": "another eps",
    "norm": "another norm",
    "stop": "attacks that end at the first success",
    "attacks": "other attacks",
}
"""How the page says in which of `Terms` two groups differ."""


@dataclass(frozen=True)
class Line:
    """One model. `rank`: None where it is not ranked; `behind`: the comparison with the first of its group."""

    rank: int | None
    name: str
    entry: Entry
    figures: Mapping[str, Any]
    behind: Mapping[str, Any] | None

    @property
    def robust(self) -> Mapping[str, Any] | None:
        return self.figures["means"]["direct"]["levels"]["worst"]

    @property
    def near(self) -> bool:
        """Whether the images show no clear difference from the first of its group."""
        return self.behind is not None and not self.behind["clear"]

    @property
    def weakest(self) -> Mapping[str, Any]:
        """The level at which least is kept."""
        return min(self.figures["cuts"], key=lambda cut: cut["readouts"]["direct"]["worst"]["value"])

    @property
    def count(self) -> Counter[str]:
        return Counter(found.status for found in self.entry.checks or ())

    @property
    def open(self) -> list[Any]:
        """The checks that failed or ask for a look, the gravest first."""
        grave = [found for found in self.entry.checks or () if found.status in ("fail", "flag")]
        return sorted(grave, key=lambda found: GRAVE.index(found.status))


@dataclass(frozen=True)
class Board:
    """One group of the page, best first."""

    group: Group
    lines: list[Line]
    cuts: list[Mapping[str, Any]]
    apart: list[str]

    @property
    def title(self) -> str:
        terms, trees = self.group.terms, ", ".join(tree.name for tree in self.group.table.forest.trees)
        norm = {"linf": "l∞", "l2": "l2"}.get(terms.norm, terms.norm)
        return f"ε = {budget(terms.eps)}, {norm} · {trees} · {len(self.group.table.images)} images"

    @property
    def chance(self) -> float:
        return sum(cut["chance"] for cut in self.cuts) / len(self.cuts)

    @property
    def attacks(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """(name, what it aims at, settings) of every attack."""
        aimed: dict[str, list[str]] = {}
        for run in (self.group.entries or self.group.failed)[0].subject.runs:
            aimed.setdefault(run.attack, []).append(run.attacked)
        levels = {cut["label"] for cut in self.cuts}
        return [(name, _aims(found, levels), self.group.settings[name]) for name, found in aimed.items()]


def write_leaderboard(folder: Path, output: Path) -> list[Board]:
    """Write the page of all audits in a folder, and return what it shows; the same audits give the same bytes.

    Raises:
        ValueError: as `leaderboard.compared`.
    """
    groups, proofs = compared(folder)
    boards: list[Board] = []
    for group in groups:
        boards.append(_board(group, boards[0].group.terms if boards else None))
    write_whole(output, _page(boards, proofs, folder))
    return boards


def _board(group: Group, first: Terms | None) -> Board:
    lines: list[Line] = []
    cuts: list[Mapping[str, Any]] = []
    for entries, ranked in ((group.entries, True), (group.failed, False)):
        if entries:
            measured = group.figures(entries)
            cuts = measured["cuts"]
            lines += _lines(group, entries, measured, ranked=ranked)
    apart = [APART[name] for name in group.terms.differences(first)] if first else []
    return Board(group, lines, cuts, apart)


def _lines(group: Group, entries: list[Entry], measured: Mapping[str, Any], *, ranked: bool) -> list[Line]:
    behind = {(pair["b"]["model"], pair["b"]["head"]): pair for pair in measured["comparisons"]} if ranked else {}

    def kept(pair: tuple[Entry, Mapping[str, Any]]) -> float:
        mean = pair[1]["means"]["direct"]["levels"]
        return -(mean["worst"] or mean["clean"])["value"]

    ordered = sorted(zip(entries, measured["models"], strict=True), key=kept)
    ranked = ranked and measured["headline"]["strongest"] is not None
    means = [kept(pair) for pair in ordered]
    return [
        Line(
            means.index(mean) + 1 if ranked else None,  # equal models share a rank
            group.name(entry),
            entry,
            found,
            behind.get((found["model"], found["head"])),
        )
        for mean, (entry, found) in zip(means, ordered, strict=True)
    ]


def _aims(found: list[str], levels: set[str]) -> str:
    others = [label for label in found if label not in levels]
    said = ["every level in turn"] if levels <= set(found) else [label for label in found if label in levels]
    return ", ".join(said + ["all levels at once" if label == "all" else label for label in others])


def _page(boards: list[Board], proofs: list[Proof], folder: Path) -> str:
    context = {
        "boards": boards,
        "proofs": proofs,
        "folder": folder.resolve().name,
        "models": sum(len(board.lines) for board in boards),
        "dumbbell": lambda *arguments: Markup(charts.dumbbell(*arguments)),
        **dress(),
    }
    return environment(escape=True).get_template("leaderboard.html.jinja").render(context)
