"""`robustree tree show` and `robustree tree check`: label trees, without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from robustree.cli.parsing import nearest, parse
from robustree.taxonomy import EMOJI_TREES, Forest, draw_tree, emoji_forest, leaves_of, outline, read_forest


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
    commands = Annotated[Show, tyro.conf.subcommand("show")] | Annotated[Check, tyro.conf.subcommand("check")]
    options = parse(commands, arguments, command="tree", about="Show or check a label tree.")
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
    if name in EMOJI_TREES:
        shipped = files("robustree.taxonomy").joinpath("library", "emoji", f"{name}.json")
        return emoji_forest(read_classes(classes) if classes else leaves_of(Path(str(shipped))), [name])
    if not Path(name).exists() and not name.endswith(".json"):
        raise ValueError(
            f"there is no tree {name!r}{nearest(name, EMOJI_TREES)}: "
            f"give a tree file or a shipped tree ({', '.join(EMOJI_TREES)})."
        )
    return read_forest([name], read_classes(classes) if classes else leaves_of(name))


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
