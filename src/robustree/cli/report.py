"""`robustree report`: the report of an audit from its rows, without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from robustree.auditing.report.page import write_report
from robustree.cli.parsing import parse
from robustree.cli.table import check_lines, figures_table, pairs_table


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which audit."""

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIRECTORY")]
    """The directory that `robustree audit` wrote."""


def run(arguments: Sequence[str]) -> int:
    options = parse(Options, arguments, command="report", about="Rebuild the report of an audit from its rows.")
    show_report(options.directory)
    return 0


def show_report(directory: Path, *, whole: bool = True) -> dict[str, object]:
    """Write the report, print the table and where the report is, and return the figures.

    `whole`: print also the pairs of models and what the checks found.
    """
    report = write_report(directory)
    figures = json.loads(report.figures.read_text(encoding="utf-8"))
    console, pairs = Console(soft_wrap=True, highlight=False, markup=False), pairs_table(figures) if whole else None
    for table in (figures_table(figures), *([pairs] if pairs else [])):
        # A table wider than the terminal runs over its edge: figures are never cut off.
        needed = Console(width=10_000).measure(table).maximum
        Console(width=max(console.width, needed)).print(table)
    for line in check_lines(figures["checks"]) if whole and figures["checks"] else []:
        console.print(line)
    console.print(f"report  {report.html}")
    return figures
