"""`robustree convert`: weights from one layout into another, checked tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from robustree.checkpoint import complete_files, find_checkpoint
from robustree.cli.parsing import parse
from robustree.models import adapt
from robustree.models.huggingface import Parts
from robustree.models.loading import read
from robustree.models.openclip_config import Activation
from robustree.models.openclip_format import read_openclip, write_openclip
from robustree.models.openclip_geometry import CONFIG


@dataclass(frozen=True, kw_only=True)
class Options:
    """What becomes what."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """nano, a hub id, a model directory, a hardened checkpoint, or a weights file (.safetensors, .pt, .bin)."""
    to: Literal["transformers", "openclip"]
    """The layout to write: that of transformers, or that of OpenAI's CLIP and open_clip."""
    output: Path
    """The directory for it."""
    base: str | None = None
    """The CLIP from which a weights file that holds a vision tower alone (FARE's, TeCoA's) was tuned."""
    activation: Activation | None = None
    """What a weights file without open_clip_config.json was trained with: quick_gelu (OpenAI's and what was tuned from
    them) or gelu (most others)."""


def run(arguments: Sequence[str]) -> int:
    options = parse(Options, arguments, command="convert", about="Convert weights between transformers and open_clip.")
    parts, openclip = _read(options), options.to == "openclip"
    with complete_files(options.output, marker=CONFIG if openclip else "config.json") as fresh:
        if openclip:
            write_openclip(fresh, parts)
        else:
            name = Path(options.model).stem
            adapt(parts.model, parts.tokenizer, preprocessing=parts.preprocessing, name=name).save(fresh)
    opens = f'open_clip.create_model_from_pretrained("local-dir:{options.output}")'
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(
        f"written  {options.output}\nnext     {opens if openclip else f'robustree audit {options.output} ...'}"
    )
    return 0


def _read(options: Options) -> Parts:
    path = Path(options.model)
    if path.is_file():
        base = read(options.base) if options.base else None
        return read_openclip(path, activation=options.activation, base=base)
    for name in ("base", "activation"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} is about a weights file, and {options.model!r} is none: leave --{name} out.")
    return read(str(find_checkpoint(options.model) or options.model))
