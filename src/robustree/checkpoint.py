"""Hardened models on disk: a directory that transformers opens as an ordinary CLIP, plus what the tree needs.

    config.json, model.safetensors, tokenizer files    `CLIPModel.from_pretrained(directory)` reads these
    head.safetensors                                   image_norm and the pretrained text projection W_0
    robustree.json                                     forest, head, template, recipe, format version

`robustree.json` is written last: a directory that has it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from robustree.geometry import Euclidean, Poincare, Space, Sphere
from robustree.models import VisionLanguageModel, load
from robustree.taxonomy import Forest, forest_from_json, forest_to_json
from robustree.tree_model import Depths, Head, TreeModel, fill
from robustree.writing import write_whole  # noqa: F401 - who writes beside a checkpoint finds it here

FORMAT = 1
MARKER = "robustree.json"
_SPACES: dict[str, type[Space]] = {space.name: space for space in (Poincare, Euclidean, Sphere)}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A hardened model as read from disk. `record` is the JSON written beside it (recipe, figures)."""

    model: VisionLanguageModel
    tree_model: TreeModel
    template: str
    record: Mapping[str, Any]


def save_checkpoint(
    directory: Path, model: VisionLanguageModel, tree_model: TreeModel, *, template: str, record: Mapping[str, Any]
) -> None:
    """Write a hardened model; until its last file is in place, `directory` holds no readable checkpoint."""
    with complete_files(directory, marker=MARKER) as fresh:
        model.save(fresh)
        tensors = {f"pretrained_projection.{k}": v for k, v in tree_model.pretrained_projection.state_dict().items()}
        save_file({"image_norm": tree_model.image_norm} | tensors, fresh / "head.safetensors")
        head = tree_model.head
        content = {
            "format": FORMAT,
            "template": template,
            "head": {
                "space": {"name": head.space.name} | asdict(head.space),
                "scale": head.scale,
                "depths": asdict(head.depths),
            },
            "forest": forest_to_json(tree_model.forest),
            "record": record,
        }
        (fresh / MARKER).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_checkpoint(directory: Path, *, forest: Forest | None = None) -> Checkpoint:
    """Read a hardened model over its own forest, or over another `forest` (new prompts are encoded).

    Raises:
        ValueError: the directory is no checkpoint of this library, is incomplete, or has another format version.
    """
    path = directory / MARKER
    if not path.is_file():
        raise ValueError(f"{str(directory)!r} has no {MARKER}; give a directory that `robustree harden` finished.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(
                f"{str(path)!r} has format {content['format']}; this version reads {FORMAT}: harden again."
            )
        template, record = content["template"], content["record"]
        space = dict(content["head"]["space"])
        head = Head(
            space=_SPACES[space.pop("name")](**space),
            scale=float(content["head"]["scale"]),
            depths=Depths(**content["head"]["depths"]),
        )
        own = forest_from_json(content["forest"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}): restore it or harden again.") from error
    model = load(str(directory))
    projection = nn.Linear(
        model.text_projection.in_features,
        model.text_projection.out_features,
        bias=model.text_projection.bias is not None,
    )
    weights = directory / "head.safetensors"
    try:
        tensors = load_file(weights)
        image_norm = float(tensors.pop("image_norm"))
        projection.load_state_dict(
            {name.removeprefix("pretrained_projection."): value for name, value in tensors.items()}
        )
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(f"{str(weights)!r} is missing or damaged ({error}): restore it or harden again.") from error
    chosen = forest or own
    tree_model = TreeModel(
        model.image_encoder,
        model.text_projection,
        model.text_features(fill(template, chosen.names)),
        chosen,
        head,
        image_norm=image_norm,
        pretrained_projection=projection,
    )
    return Checkpoint(model=model, tree_model=tree_model, template=template, record=record)


@contextmanager
def complete_files(directory: Path, *, marker: str) -> Iterator[Path]:
    """A temporary directory whose files move into `directory` when the block ends well, and vanish otherwise.

    The file named `marker` leaves first and arrives last: where it stands, all the others are whole and belong to it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".writing-", dir=directory))
    try:
        yield fresh
        files = sorted(fresh.iterdir(), key=lambda file: file.name == marker)
        for file in files:
            file.chmod(0o644)
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        (directory / marker).unlink(missing_ok=True)
        for file in files:
            os.replace(file, directory / file.name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def device_of(model: torch.nn.Module) -> torch.device:
    """Where a module's weights are."""
    return next(model.parameters()).device


def weights_digest(model: TreeModel) -> str:
    """The sha256 (hex) of what decides a model's scores: its weights, node texts and head."""
    digest = hashlib.sha256(repr(model.head).encode())
    for name, tensor in sorted({**model.state_dict(), "text_features": model.text_features}.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
