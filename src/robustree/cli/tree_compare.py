"""`robustree tree compare`: how alike trees over the same classes are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustree.cli.tree_output import check_output, page, say_written
from robustree.taxonomy import Forest
from robustree.taxonomy.comparing import Likeness, compare_trees
from robustree.taxonomy.heat_map import draw_heat_map
from robustree.writing import write_whole


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Say how alike trees over the same classes are."""

    trees: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TREE TREE [TREE ...]")]
    """Two or more shipped trees, such as unicode or imagenet/kind (see tree list), or tree files."""
    output: Path | None = None
    """Draw a heat map of all levels into this .svg or .html file."""


def compare(options: Compare, forest: Forest) -> None:
    """Print the table and draw the heat map."""
    pairs = compare_trees(forest)
    if options.output is not None:
        check_output(options.output, ".svg", ".html")
        drawing = draw_heat_map(forest)
        if options.output.suffix == ".html":
            drawing = page("comparison of label trees", drawing)
        write_whole(options.output, drawing)
    _print_table(pairs)
    if options.output is not None:
        say_written("heat map", options.output)


def _print_table(pairs: Sequence[Likeness]) -> None:
    most = max(min(len(pair.levels), len(pair.levels[0])) for pair in pairs)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", caption_justify="left")
    table.add_column("trees", no_wrap=True)
    for level in range(1, most + 1):
        table.add_column(f"level {level}", justify="right")
    table.add_column("mean", justify="right")
    for pair in pairs:
        same = min(len(pair.levels), len(pair.levels[0]))
        values = [f"{pair.levels[level][level]:.2f}" for level in range(same)]
        table.add_row(
            Text(f"{pair.first} and {pair.second}"),
            *values,
            *[""] * (most - same),
            Text(f"{pair.mean:.2f}", "bold"),
        )
    table.caption = Text("normalised mutual information, 1 for equal levels; level 1 is the finest", "dim")
    Console().print(table)
