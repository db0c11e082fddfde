"""How the tree commands say and save what they have built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from robustree.taxonomy import Forest, TreeSource, build_forest, parse_tree, tree_to_json
from robustree.writing import write_whole


def check_output(output: Path, *endings: str) -> None:
    """Raise ValueError, before any work is done, unless the file has one of the endings."""
    if output.suffix not in endings:
        raise ValueError(f"--output is {str(output)!r}; give a file that ends in {' or '.join(endings)}.")


def save_tree(source: TreeSource, leaves: Sequence[str], output: Path) -> None:
    """Write a tree file that reads back as `source`, and print its levels.

    Raises:
        ValueError: the tree is not right.
    """
    text = tree_to_json(source)
    forest = build_forest(leaves, [parse_tree(text, leaves, where=str(output))])
    write_whole(output, text)
    print_levels(forest)
    say_written("tree", output)


def print_levels(forest: Forest) -> None:
    """The levels of the forest's only tree, a line each."""
    tree = forest.trees[0]
    print(f"{tree.name} is right: {forest.leaf_count} leaves, {len(tree.levels)} levels above them")
    for cut in forest.cuts():
        sizes = [cut.of_leaf.count(node) for node in range(len(cut.nodes))]
        between = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{max(sizes)}"
        spread = f"  of {between} leaves" if cut.level else ""
        print(f"  {cut.label:<{len(tree.name) + 3}} {len(cut.nodes):>4} nodes{spread}")


def say_written(what: str, output: Path) -> None:
    """A line with a file's path, never broken."""
    Console(soft_wrap=True, highlight=False).print(f"{what}  {output}", markup=False)


def page(title: str, drawing: str) -> str:
    """An HTML page with one SVG drawing."""
    return f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n{drawing}\n</html>\n'
