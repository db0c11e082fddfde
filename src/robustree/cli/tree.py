"""`robustree tree`: list, show, check, build and compare label trees; torch is loaded only for text embeddings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from robustree.cli.class_lists import read_classes
from robustree.cli.parsing import nearest, parse
from robustree.cli.tree_cluster import Cluster
from robustree.cli.tree_cluster import build as build_clusters
from robustree.cli.tree_compare import Compare, compare
from robustree.cli.tree_language import Llm
from robustree.cli.tree_language import build as build_language
from robustree.cli.tree_output import check_output, page, print_levels, say_written
from robustree.cli.tree_wordnet import Wordnet
from robustree.cli.tree_wordnet import build as build_wordnet
from robustree.taxonomy import (
    EMOJI_TREES,
    SHIPPED_TREES,
    Forest,
    TreeSource,
    build_forest,
    draw_tree,
    leaves_of,
    outline,
    read_forest,
    read_tree,
    shipped_forest,
    shipped_tree_file,
)
from robustree.taxonomy.drawing import legible_width
from robustree.writing import write_whole

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
    width: int | None = None
    """Pixels of the drawing; 900, or as many as the names of all classes need, if left out."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """Say whether a tree file is right, and what its levels are."""

    tree: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TREE")]
    """A tree file."""
    classes: Path | None = None
    """The classes, one a line or as a JSON list; those of the tree if left out."""


Command = (
    Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Wordnet, tyro.conf.subcommand("wordnet")]
    | Annotated[Cluster, tyro.conf.subcommand("cluster")]
    | Annotated[Llm, tyro.conf.subcommand("llm")]
)


def run(arguments: Sequence[str]) -> int:
    options = parse(Command, arguments, command="tree", about="Show, check, list, build or compare label trees.")
    match options:
        case Show():
            _show(options)
        case Check():
            print_levels(read_one(options.tree, options.classes))
        case List():
            print(table_of_shipped_trees(), end="")
        case Compare():
            compare(options, _read_several(options.trees))
        case Wordnet():
            build_wordnet(options)
        case Cluster():
            build_clusters(options)
        case Llm():
            build_language(options)
    return 0


def read_one(name: str, classes: Path | None) -> Forest:
    """The forest of one tree: shipped, or in a file.

    Raises:
        ValueError: neither, or the tree does not fit the classes.
    """
    path = _find(name)
    leaves = read_classes(classes) if classes else leaves_of(path)
    if (shipped := _shipped_name(name)) in SHIPPED_NAMES:
        data_set, tree = shipped.split("/")
        return shipped_forest(data_set, leaves, [tree])
    return read_forest([path], leaves)


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


def _shipped_name(name: str) -> str:
    return f"emoji/{name}" if name in EMOJI_TREES else name


def _find(name: str) -> Path:
    """The file of a tree; ValueError where it is neither shipped nor a file."""
    if (shipped := _shipped_name(name)) in SHIPPED_NAMES:
        data_set, tree = shipped.split("/")
        return shipped_tree_file(data_set, tree)
    if not Path(name).exists() and not name.endswith(".json"):
        raise ValueError(
            f"there is no tree {name!r}{nearest(name, (*EMOJI_TREES, *SHIPPED_NAMES))}: give a tree file or a "
            "shipped tree; robustree tree list names them."
        )
    return Path(name)


def _read_several(names: Sequence[str]) -> Forest:
    """The forest of several trees over the classes of the first; a name that is taken gets a number.

    Raises:
        ValueError: one is neither shipped nor a file, or it has other classes than the first.
    """
    paths = [_find(name) for name in names]
    leaves = leaves_of(paths[0]) if paths else ()
    sources: list[TreeSource] = []
    for path in paths:
        source = read_tree(path, leaves)
        taken = {other.name for other in sources}
        free = (name for number in range(2, len(paths) + 2) if (name := f"{source.name}-{number}") not in taken)
        sources.append(replace(source, name=next(free)) if source.name in taken else source)
    return build_forest(leaves, sources)


def _show(options: Show) -> None:
    if options.output is not None:
        check_output(options.output, ".svg", ".html")
    forest = read_one(options.tree, options.classes)
    name = forest.trees[0].name
    if options.output is None:
        print(outline(forest, name), end="")
        return
    drawing = draw_tree(forest, name, width=legible_width(forest) if options.width is None else options.width)
    if options.output.suffix == ".html":
        drawing = page(f"{name} label tree", drawing)
    write_whole(options.output, drawing)
    say_written("drawing", options.output)
