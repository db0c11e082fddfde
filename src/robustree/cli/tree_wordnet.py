"""`robustree tree wordnet`: a tree from the hypernyms of WordNet 3.0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robustree.cli.class_lists import open_classes
from robustree.cli.tree_output import check_output, save_tree, say_written
from robustree.taxonomy.building.nouns import wordnet_nouns
from robustree.taxonomy.building.senses import Sense, find_senses, parse_senses, senses_to_text
from robustree.taxonomy.building.wordnet import wordnet_tree
from robustree.taxonomy.tree import check_tree_name
from robustree.writing import write_whole


@dataclass(frozen=True, kw_only=True)
class Wordnet:
    """Build a tree from the hypernyms of WordNet 3.0."""

    classes: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CLASSES")]
    """A file with one class a line (name, name=n02012849 or n02012849), a tree file, or a shipped list."""
    output: Path
    """The tree file; beside it goes .senses.txt with the sense of every class."""
    name: str = "wordnet"
    """The tree's name."""
    levels: int = 5
    """The most levels above the leaves."""
    senses: Path | None = None
    """Senses that are chosen by hand: lines such as crane=n02012849, or a wnid for every class in their order."""


def build(options: Wordnet) -> None:
    """Build the tree, write it and say how the senses were found."""
    check_output(options.output, ".json")
    check_tree_name(options.name)
    classes = open_classes(options.classes)
    given: dict[str, str] = {}
    if classes.synsets is not None:
        given = parse_senses(classes.synsets, classes.names, where=options.classes)
    if options.senses is not None:
        text = options.senses.read_text(encoding="utf-8-sig")
        given |= parse_senses(text, classes.names, where=str(options.senses))
    nouns = wordnet_nouns()
    senses = find_senses(classes.names, nouns, given)
    source = wordnet_tree(senses, name=options.name, levels=options.levels)
    report = options.output.with_suffix(".senses.txt")
    if options.senses is None or report.resolve() != options.senses.resolve():
        write_whole(report, senses_to_text(senses, nouns))
    save_tree(source, [sense.name for sense in senses], options.output)
    say_written("senses", report)
    _say_choices(senses)


def _say_choices(senses: Sequence[Sense]) -> None:
    several = [sense.name for sense in senses if sense.others]
    parts = [sense for sense in senses if sense.looked_up and sense.looked_up.casefold() != sense.name.casefold()]
    if several:
        print(f"{len(several)} classes have several senses, such as {_some(several)}: check those lines,")
    if parts:
        found = [f"{sense.name} ({sense.looked_up})" for sense in parts]
        print(f"{len(parts)} were found by a part of their name, such as {_some(found)}: check those too,")
    if several or parts:
        print("correct what is wrong, and run again with --senses FILE.")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3])
