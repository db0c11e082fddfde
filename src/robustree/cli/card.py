"""`robustree card`: the figures of an audit and the licence into a checkpoint's model card."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from robustree.auditing.audit import HEAD_NAMES
from robustree.auditing.rows import FOREST
from robustree.checkpoint import add_to_card, load_checkpoint, read_record, weights_digest
from robustree.cli.parsing import parse
from robustree.model_card import CARD
from robustree.taxonomy import Forest, forest_from_json


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the card shall say."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """The directory that `robustree harden` wrote."""
    audit: Path | None = None
    """The directory of an audit of this checkpoint; its figures go onto the card."""
    licence: str | None = None
    """The licence under which you give the weights away, as the hub calls it: apache-2.0, cc-by-nc-4.0, ..."""


def run(arguments: Sequence[str]) -> int:
    options = parse(Options, arguments, command="card", about="Write the model card of a hardened checkpoint.")
    read_record(options.checkpoint)
    entries: dict[str, Any] = {"licence": options.licence} if options.licence else {}
    if options.audit:
        entries["figures"] = figures_of(options.checkpoint, options.audit)
    add_to_card(options.checkpoint, **entries)
    Console(soft_wrap=True, highlight=False, markup=False).print(f"model card  {options.checkpoint / CARD}")
    return 0


def figures_of(checkpoint: Path, audit: Path) -> dict[str, Any]:
    """What a card says of an audit: of the checkpoint's own head, found by the digest of its weights.

    Raises:
        ValueError: there is no finished audit in the directory, none of its models is this checkpoint, or it attacked
            nothing.
    """
    header, figures, forest = (_json_in(audit, name) for name in ("audit.json", "figures.json", FOREST))
    nodes = forest_from_json(forest)
    subject = _subject(checkpoint, audit, header, figures, nodes)
    levels = [
        {"level": cut["label"], "nodes": cut["nodes"], **_rates(reading["readouts"]["direct"])}
        for cut, reading in zip(figures["cuts"], subject["cuts"], strict=True)
    ]
    if any(level["robust"] is None for level in levels):
        raise ValueError(f"{str(audit)!r} holds no attack on {subject['model']!r}: run the audit to its end.")
    return {
        "head": subject["head"],
        "data": _data(header["command"]),
        "images": figures["images"],
        "threat": header["threat"],
        "attacks": list(header["attacks"]),
        "seed": header["seed"],
        "command": header["command"],
        "versions": header["versions"],
        "levels": levels,
        "mean": {"level": "mean of levels", "nodes": "", **_rates(subject["means"]["direct"]["levels"])},
        "every": {"level": "right at every level", "nodes": "", **_rates(subject["any_level"]["levels"])},
        "nodes": {
            str(node["node"]): node["worst"]["value"]
            for reading in subject["cuts"]
            for node in reading["by_node"]
            if node["worst"] and node["n"]
        },
    }


def _json_in(audit: Path, name: str) -> Any:
    path = audit / name
    if not path.is_file():
        raise ValueError(f"{str(audit)!r} has no {name}: give a directory in which `robustree audit` finished.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}): run `robustree report {audit}` again.") from error


def _subject(
    checkpoint: Path, audit: Path, header: Mapping[str, Any], figures: Mapping[str, Any], forest: Forest
) -> Mapping[str, Any]:
    model = load_checkpoint(checkpoint, forest=forest).tree_model
    digest, head = weights_digest(model), HEAD_NAMES[model.head.space.name]
    for subject in figures["models"]:
        known = header["heads"].get(f"{subject['model']}/{subject['head']}", {})
        if subject["head"] == head and known.get("weights") == digest:
            return subject
    names = ", ".join(header["models"])
    raise ValueError(
        f"the audit in {str(audit)!r} measured {names}, and none of them with the weights of {str(checkpoint)!r}: "
        f"run robustree audit {checkpoint} --output {audit}-again."
    )


def _rates(reading: Mapping[str, Any]) -> dict[str, Any]:
    return {"clean": reading["clean"], "robust": reading["worst"]}


def _data(command: str) -> str:
    """The name of the images in an audit's command line, without their folder's path."""
    words = shlex.split(command)
    return Path(words[words.index("--data") + 1]).name if "--data" in words else "emoji"
