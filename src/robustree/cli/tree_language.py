"""`robustree tree llm`: a tree from a language model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from robustree.cli.class_lists import open_classes
from robustree.cli.endings import keeping
from robustree.cli.progress import Bar
from robustree.cli.tree_output import check_output, save_tree
from robustree.taxonomy.building.chat import Chat
from robustree.taxonomy.building.language import language_tree
from robustree.taxonomy.tree import check_tree_name


@dataclass(frozen=True, kw_only=True)
class Llm:
    """Build a tree by asking a language model for groups and for the group of every class."""

    classes: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CLASSES")]
    """A file with one class a line, a tree file, or a shipped list (emoji imagenet cifar100 ...)."""
    endpoint: str
    """The URL of an OpenAI-compatible endpoint up to /v1, also a local one."""
    llm: str
    """The model's name there."""
    output: Path
    """The tree file; beside it goes a directory .answers with every answer, which another run uses again."""
    name: str = "llm"
    """The tree's name."""
    levels: int = 2
    """Levels above the leaves, 1 to 4."""
    chunk: int = 50
    """Classes that are asked about at a time."""
    key_variable: str | None = None
    """The environment variable that holds the endpoint's key; no key is sent if left out."""
    timeout: float = 120.0
    """Seconds to wait for one answer."""
    tries: int = 5
    """How often an answer is asked for when none comes."""


def build(options: Llm) -> None:
    """Ask, check and write the tree."""
    check_output(options.output, ".json")
    check_tree_name(options.name)
    classes = open_classes(options.classes).names
    answers = options.output.with_suffix(".answers")
    chat = Chat(
        endpoint=options.endpoint,
        model=options.llm,
        cache=answers,
        key=_key(options.key_variable),
        timeout=options.timeout,
        tries=options.tries,
    )
    kept = f"the answers so far are in {answers}: run the same command to go on"
    with keeping(kept), Bar(Console(stderr=True), options.name, len(classes)) as bar:
        before = 0

        def report(done: int, total: int) -> None:
            nonlocal before
            bar.update(done, images=0, work=done - before, doing=f"{done} of {total} classes")
            before = done

        source = language_tree(
            classes,
            chat,
            name=options.name,
            levels=options.levels,
            chunk=options.chunk,
            about=f"Groups by the language model {options.llm}, every class assigned once (robustree tree llm).",
            report=report,
        )
    save_tree(source, classes, options.output)


def _key(variable: str | None) -> str:
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(f"the environment variable {variable} is not set: set it to the key, or leave it out.")
    return key
