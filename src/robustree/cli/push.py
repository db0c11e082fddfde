"""`robustree push`: a hardened checkpoint to the Hugging Face hub, from where `load` and every command read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from robustree.checkpoint import load_checkpoint, read_record
from robustree.cli.parsing import parse
from robustree.models.hub import upload

_SUFFIXES = (".json", ".safetensors", ".txt", ".svg", ".md")
_PRIVATE = ("state.safetensors",)
"""The optimiser's state, which a run resumes from."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What goes where."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """The directory that `robustree harden` wrote."""
    repository: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]
    """Where it goes at the hub; it is made if it does not exist."""
    public: bool = False
    """Let everybody read it. Without this it is private: what was public once cannot be taken back."""


def run(arguments: Sequence[str]) -> int:
    options = parse(Options, arguments, command="push", about="Upload a hardened checkpoint to the Hugging Face hub.")
    read_record(options.checkpoint)
    load_checkpoint(options.checkpoint)  # nothing damaged leaves the house
    files = tuple(
        sorted(
            file.name
            for file in options.checkpoint.iterdir()
            if file.is_file() and file.suffix in _SUFFIXES and file.name not in _PRIVATE
        )
    )
    seen = "public" if options.public else "private"
    address = upload(
        options.checkpoint, options.repository, files=files, public=options.public, message="Hardened with robustree"
    )
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"pushed  {address} ({seen}, {len(files)} files)\nnext    robustree audit {options.repository} ...")
    return 0
