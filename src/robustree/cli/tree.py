"""`robustree tree`: show, check, build and compare label trees; torch is loaded only where a model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import tyro

from robustree.cli.class_lists import read_classes
from robustree.cli.parsing import nearest, parse
from robustree.cli.tree_compare import Compare, compare
from robustree.cli.tree_output import check_output, page, print_levels, say_written
from robustree.cli.tree_wordnet import Wordnet
from robustree.cli.tree_wordnet import build as build_wordnet
from robustree.taxonomy import EMOJI_TREES, Forest, draw_tree, emoji_forest, leaves_of, outline, read_forest
from robustree.writing import write_whole


@dataclass(frozen=True, kw_only=True)
class Show:
    """Print a tree, or draw it."""

    tree: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TREE")]
    """A shipped tree (unicode wordnet place size words) or a tree file."""
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
        | Annotated[Compare, tyro.conf.subcommand("compare")]
        | Annotated[Wordnet, tyro.conf.subcommand("wordnet")]
    )
    options = parse(commands, arguments, command="tree", about="Show, check, build or compare label trees.")
    match options:
        case Show():
            _show(options)
        case Check():
            print_levels(read_one(options.tree, options.classes))
        case Compare():
            compare(options, _read_several(options.trees))
        case Wordnet():
            build_wordnet(options)
    return 0


def _show(options: Show) -> None:
    if options.output is not None:
        check_output(options.output, ".svg", ".html")
    forest = read_one(options.tree, options.classes)
    if options.output is None:
        print(outline(forest, forest.trees[0].name), end="")
    else:
        _draw(forest, options.output, options.width)


def read_one(name: str, classes: Path | None) -> Forest:
    """The forest of one tree: shipped, or in a file.

    Raises:
        ValueError: neither, or the tree does not fit the classes.
    """
    if name in EMOJI_TREES:
        shipped = files("robustree.taxonomy").joinpath("library", "emoji", f"{name}.json")
        return emoji_forest(read_classes(classes) if classes else leaves_of(Path(str(shipped))), [name])
    if not Path(name).exists() and not name.endswith(".json"):
        raise ValueError(
            f"there is no tree {name!r}{nearest(name, EMOJI_TREES)}: "
            f"give a tree file or a shipped tree ({', '.join(EMOJI_TREES)})."
        )
    return read_forest([name], read_classes(classes) if classes else leaves_of(name))


def _read_several(names: Sequence[str]) -> Forest:
    """The forest of several trees over the classes of the first.

    Raises:
        ValueError: one is neither shipped nor a file, two have one name, or they have other classes.
    """
    leaves = read_one(names[0], None).leaves if names else ()
    sources: list[TreeSource] = []
    for name in names:
        source = _source(name, leaves)
        twins = sum(other.name.rpartition("-")[0] == source.name or other.name == source.name for other in sources)
        sources.append(replace(source, name=f"{source.name}-{twins + 1}") if twins else source)
    return build_forest(leaves, sources)


def _draw(forest: Forest, output: Path, width: int) -> None:
    drawing = draw_tree(forest, forest.trees[0].name, width=width)
    if output.suffix == ".html":
        drawing = page(f"{forest.trees[0].name} label tree", drawing)
    write_whole(output, drawing)
    say_written("drawing", output)
