"""`robustree demo`: the local page that attacks one image and shows it in the tree."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from robustree.auditing.audit import Subject
from robustree.checkpoint import MARKER
from robustree.cli.loading import Source, choose_device, choose_forest, open_over, sources
from robustree.cli.options import Device
from robustree.cli.parsing import parse
from robustree.data import data_over
from robustree.demo.bench import Bench, choose_samples
from robustree.demo.serving import LOOPBACK, serve
from robustree.tree_model import TEMPLATE

QUICKSTART = Path("robustree-quickstart")
HARDENED = ("tecoa", "hierarchical")
MISSING = (
    "The plain model stands alone. The command robustree quickstart hardens it in two ways (about four minutes); "
    f"started again beside the folder {QUICKSTART}, this page shows all three."
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the page shows, and where."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = ()
    """nano, hub ids, model directories or hardened checkpoints; name=path gives a name. Without any: nano, and what the
    quickstart made in this directory."""
    data: str = "emoji"
    """The images to pick from: emoji, or a folder with one sub-folder a class."""
    trees: tuple[str, ...] = ()
    """Shipped trees (unicode wordnet place size words) or files; those of the checkpoints if left out."""
    other_trees: bool = False
    """Show checkpoints with trees that they were not hardened with."""
    audit: Path | None = None
    """The directory of an audit, whose report the page shows. Without models: the quickstart's, if there is one."""
    host: str = "127.0.0.1"
    """Who may see the page: this machine, or with 0.0.0.0 everybody who reaches it."""
    port: int = 7860
    """Where the page listens; 0 for any free port."""
    template: str = TEMPLATE
    """The prompt of a class for plain models; checkpoints bring their own."""
    device: Device | None = None
    """cpu or cuda; the GPU if there is one, unless said here."""


def run(arguments: Sequence[str]) -> int:
    options = parse(Options, arguments, command="demo", about="Attack one image in the browser, and watch.")
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("the page needs gradio, which is not installed: pip install 'robustree[demo]'.")
    console = Console(highlight=False, soft_wrap=True)
    bench = open_bench(options)
    if options.host not in LOOPBACK:
        console.print(f"--host is {options.host}: everybody who reaches this machine can use the page.", style="yellow")
    serve(
        bench,
        host=options.host,
        port=options.port,
        ready=lambda url: console.print(f"open {url} in a browser; Ctrl-C ends the page"),
    )
    return 0


def open_bench(options: Options) -> Bench:
    """Models, trees, images and the audit that the options name.

    Raises:
        ValueError: something is not there or does not fit.
    """
    device, named = choose_device(options.device), _named(options)
    audit = _audit(options)
    forest = choose_forest(named, options.trees, options.data, other_trees=options.other_trees)
    loaded = [open_over(source, forest, template=options.template, device=device) for source in named]
    subjects = tuple(Subject(model.source.name, model.model) for model in loaded)
    images = data_over(options.data, forest).audit(loaded[0].resolution)
    return Bench(
        subjects=subjects,
        forest=forest,
        samples=choose_samples(subjects, forest, images),
        resolution=loaded[0].resolution,
        audit=audit,
        missing=MISSING if not options.models and len(named) == 1 else None,
    )


def _named(options: Options) -> tuple[Source, ...]:
    if options.models:
        return sources(options.models)
    made = [name for name in HARDENED if options.data == "emoji" and (QUICKSTART / name / MARKER).is_file()]
    return (Source("nano", "nano"), *(Source(name, str(QUICKSTART / name)) for name in made))


def _audit(options: Options) -> Path | None:
    if options.audit is None:
        found = not options.models and (QUICKSTART / "report.html").is_file()
        return QUICKSTART if found else None
    for name in ("report.html", "figures.json"):
        if not (options.audit / name).is_file():
            raise ValueError(
                f"{str(options.audit)!r} has no {name}: give an audit's directory, or write it with robustree report."
            )
    return options.audit
