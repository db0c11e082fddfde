"""`robustree tree list`, `robustree tree show` and `robustree tree check`: label trees, without torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from robustree.cli.parsing import nearest, parse
from robustree.taxonomy import (
    EMOJI_TREES,
    SHIPPED_TREES,
    Forest,
    draw_tree,
    leaves_of,
    outline,
    read_forest,
    shipped_forest,
    shipped_tree_file,
)

SHIPPED_NAMES = tuple(f"{data_set}/{tree}" for data_set, trees in SHIPPED_TREES.items() for tree in trees)
"""The shipped trees as the command line names them; those of the emoji also go by their bare name."""


@dataclass(frozen=True, kw_only=True)
class List:
    """List the shipped trees: the nodes of each level (finest first), the largest group and the groups of one class."""


@dataclass(frozen=True, kw_only=True)
class Show:
    """Print a tree, or draw it."""

    tree: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TREE")]
    """A shipped tree, such as unicode or imagenet/kind (see tree list), or a tree file."""
    output: Path | None = None
    """Draw into this .svg or .html file instead of printing."""
    classes: Path | None = None
    """The classes, one a line or as a JSON list; those of the tree if left out."""
    width: int = 900
    """Pixels of the drawing."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """Say whether a tree file is right, and what its levels are."""

    tree: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TREE")]
    """A tree file."""
    classes: Path | None = None
    """The classes, one a line or as a JSON list; those of the tree if left out."""


def run(arguments: Sequence[str]) -> int:
    commands = (
        Annotated[Show, tyro.conf.subcommand("show")]
        | Annotated[Check, tyro.conf.subcommand("check")]
        | Annotated[List, tyro.conf.subcommand("list")]
    )
    options = parse(commands, arguments, command="tree", about="Show, check or list label trees.")
    if isinstance(options, List):
        print(table_of_shipped_trees(), end="")
        return 0
    forest = read_one(options.tree, options.classes)
    if isinstance(options, Check):
        _print_levels(forest)
    elif options.output is None:
        print(outline(forest, forest.trees[0].name), end="")
    else:
        _draw(forest, options.output, options.width)
    return 0


def read_one(name: str, classes: Path | None) -> Forest:
    """The forest of one tree: shipped, or in a file.

    Raises:
        ValueError: neither, or the tree does not fit the classes.
    """
    shipped = f"emoji/{name}" if name in EMOJI_TREES else name
    if shipped in SHIPPED_NAMES:
        data_set, tree = shipped.split("/")
        leaves = read_classes(classes) if classes else leaves_of(shipped_tree_file(data_set, tree))
        return shipped_forest(data_set, leaves, [tree])
    if not Path(name).exists() and not name.endswith(".json"):
        raise ValueError(
            f"there is no tree {name!r}{nearest(name, (*EMOJI_TREES, *SHIPPED_NAMES))}: give a tree file or a "
            "shipped tree; robustree tree list names them."
        )
    return read_forest([name], read_classes(classes) if classes else leaves_of(name))


def table_of_shipped_trees() -> str:
    """A Markdown table of the shipped trees, one row each, as docs/trees.md holds it."""
    rows: list[tuple[str, ...]] = [("tree", "classes", "nodes of each level", "largest group", "groups of one class")]
    for name in SHIPPED_NAMES:
        forest = read_one(name, None)
        sizes = [[*Counter(level).values()] for level in forest.trees[0].levels]
        figures = ([len(each), max(each), each.count(1)] for each in sizes)
        rows.append((name, str(forest.leaf_count), *(", ".join(map(str, each)) for each in zip(*figures, strict=True))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    padded = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"| {line} |\n" for line in padded)


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


def _print_levels(forest: Forest) -> None:
    tree = forest.trees[0]
    print(f"{tree.name} is right: {forest.leaf_count} leaves, {len(tree.levels)} levels above them")
    for cut in forest.cuts():
        sizes = [cut.of_leaf.count(node) for node in range(len(cut.nodes))]
        spread = "" if cut.level == 0 else f"  of {min(sizes)} to {max(sizes)} leaves"
        print(f"  {cut.label:<{len(tree.name) + 3}} {len(cut.nodes):>4} nodes{spread}")


def _draw(forest: Forest, output: Path, width: int) -> None:
    if output.suffix not in (".svg", ".html"):
        raise ValueError(f"--output is {str(output)!r}; a tree is drawn into a file that ends in .svg or .html.")
    drawing = draw_tree(forest, forest.trees[0].name, width=width)
    if output.suffix == ".html":
        title = f"{forest.trees[0].name} label tree"
        drawing = (
            f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n{drawing}\n</html>\n'
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(drawing, encoding="utf-8")
    Console(soft_wrap=True, highlight=False).print(f"drawing  {output}")
