"""What `robustree reproduce` prints: its tables, a plan with what it needs, and figures beside published ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustree.cli.table import STYLES
from robustree.reproducing.page import NEEDS, needs_rows, published, shown, state_of
from robustree.reproducing.tables import PaperTable


def print_tables(tables: Iterable[PaperTable], console: Console) -> None:
    """One line a table: what it compares, under what, and how many of its rows have published figures."""
    grid = _grid("table", "compares", "published", "attacks")
    for table in tables:
        attacks = ", ".join(dict.fromkeys(evaluation.attack for evaluation in table.evaluations))
        known = sum(bool(row.published) for row in table.rows)
        grid.add_row(table.name, table.about, f"{known} of {len(table.rows)} rows", attacks)
    console.print(grid)
    console.print("what a table needs        robustree reproduce TABLE --plan", soft_wrap=True)
    console.print("without GPU or downloads  robustree reproduce TABLE --scale embedded", soft_wrap=True)


def print_plan(content: Mapping[str, Any], console: Console) -> None:
    """What every model still takes, how that was reckoned, and what is not here."""
    grid = _grid(f"{content['table']}, {content['own']['scale']}", *NEEDS, right=range(1, 1 + len(NEEDS)))
    rows = needs_rows(content["needs"]["models"])
    for number, cells in enumerate(rows, 1):
        grid.add_row(*cells, end_section=number == len(content["needs"]["models"]) < len(rows))
    console.print(grid)
    console.print(f"times of one device, at most: {content['needs']['about']}", style="dim")
    if content["lacks"]:
        console.print("\nnot here", style=STYLES["flag"])
        for lack in content["lacks"]:
            console.print(f"  {lack}", soft_wrap=True)
    for row in content["rows"]:
        if row["refused"]:
            console.print(f"{row['label']}: {state_of(row)}", style=STYLES["flag"], soft_wrap=True)
    console.print()


def print_result(content: Mapping[str, Any], console: Console) -> None:
    """Published figures beside own ones where the terminal is wide enough, and below what each are of."""
    out, own = content["published"], content["own"]
    lines = "\n" * max(_broken(title).count("\n") for title in (*out["titles"], *own["titles"]))
    left = _grid(f"{lines}published", *map(_broken, out["titles"]), "source", right=range(1, len(out["titles"]) + 1))
    states = [Text("not begun" if row["refused"] else row["state"], STYLES["flag"]) for row in content["rows"]]
    said = [""] if any(state.plain != "measured" for state in states) else []
    right = _grid(
        f"{lines}here, {own['scale']}", *map(_broken, own["titles"]), *said, right=range(1, len(own["titles"]) + 1)
    )
    for row, state in zip(content["rows"], states, strict=True):
        marks = " ".join(f"[{number}]" for number in row["sources"])
        left.add_row(Text(row["label"]), *map(published, row["published"]), Text(marks, "dim"))
        right.add_row(Text(row["label"]), *map(shown, row["own"]), *([state] if said else []))
    console.print(Columns([left, right], padding=(0, 3)))
    console.print(f"published  {out['of']}", style="dim")
    for number, source in enumerate(out["sources"], 1):
        console.print(f"[{number}] {source}", style="dim", markup=False)
    console.print(f"here       {own['of']}", style="dim")


def _broken(title: str) -> str:
    """A heading in short lines."""
    return title.replace(", ", ",\n").replace(" at ", "\nat ")


def _grid(*titles: str, right: Sequence[int] = ()) -> Table:
    """A table whose last column alone may take several lines."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, title in enumerate(titles):
        last = number == len(titles) - 1
        grid.add_column(title, justify="right" if number in right else "left", no_wrap=not last)
    return grid
