"""`robustree leaderboard`: a folder of audits as one sortable page, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustree.auditing.report.leaderboard import FILE, Board, write_leaderboard
from robustree.cli.parsing import parse


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which audits."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """A folder of directories that `robustree audit` wrote."""
    output: Path | None = None
    """The page; leaderboard.html in the folder if left out."""


def run(arguments: Sequence[str]) -> int:
    options = parse(Options, arguments, command="leaderboard", about="Rank the models of many audits on one page.")
    output = options.output or options.folder / FILE
    console = Console(soft_wrap=True, highlight=False, markup=False)
    boards = write_leaderboard(options.folder, output)
    for number, board in enumerate(boards, start=1):
        console.print(_table(board, f"{number}: {board.title}" if len(boards) > 1 else board.title))
    if len(boards) > 1:
        console.print(f"{len(boards)} groups, each with its own trees, images, threat or attacks: not comparable.")
    console.print(f"leaderboard  {output}")
    return 0


def _table(board: Board, title: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", title=title, title_justify="left", title_style="bold"
    )
    table.add_column("", justify="right")
    table.add_column("model")
    for heading in ("clean", "robust", "every level"):
        table.add_column(heading, justify="right")
    table.add_column("checks")
    for line in board.lines:
        clean = line.figures["means"]["direct"]["levels"]["clean"]
        name = Text.assemble(line.name, (f" {line.entry.subject.head} · {', '.join(line.entry.audits)}", "dim"))
        every = line.figures["any_level"]["levels"]["worst"]
        rank = "–" if line.rank is None else str(line.rank)
        table.add_row(rank, name, _said(clean), _said(line.robust), _said(every), line.entry.status)
    return table


def _said(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "–"
    return f"{100 * figure['value']:.1f} ({100 * figure['low']:.0f}–{100 * figure['high']:.0f})"
