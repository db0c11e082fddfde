"""Hardened models on disk: a directory that transformers opens as an ordinary CLIP, plus what the tree needs.

    config.json, model.safetensors, tokenizer files    `CLIPModel.from_pretrained(directory)` reads these
    head.safetensors                                   image_norm and the pretrained text projection W_0
    README.md, tree-*.svg                              the model card, with the figures of an audit once it is told
    robustree.json                                     forest, head, template, recipe, figures, format, sha256 of files

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
from torch import Tensor, nn

from robustree.geometry import Euclidean, Poincare, Space, Sphere
from robustree.model_card import write_card
from robustree.models import VisionLanguageModel, hub, load
from robustree.taxonomy import Forest, forest_from_json, forest_to_json
from robustree.tree_model import Depths, Head, TreeModel, fill
from robustree.writing import write_whole

FORMAT = 1
MARKER = "robustree.json"
UNFINISHED = "writing"
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
            "files": {file.name: file_digest(file) for file in sorted(fresh.iterdir())},
        }
        write_card(fresh, tree_model.forest, content)
        (fresh / MARKER).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def find_checkpoint(where: Path | str) -> Path | None:
    """The directory of the hardened model at `where`, a directory or a hub id (owner/name), which is then fetched.

    None where there is another kind of model, or nothing.

    Raises:
        ValueError: the hub does not answer, or it could not be fetched whole.
    """
    directory = Path(where)
    if (directory / MARKER).is_file():
        return directory
    name = str(where)
    return hub.fetch(name) if hub.is_repository(name) and hub.find_file(name, MARKER) else None


def read_record(directory: Path) -> dict[str, Any]:
    """What `robustree.json` of a checkpoint holds.

    Raises:
        ValueError: the directory has none, it is damaged, or it has another format version.
    """
    path = directory / MARKER
    if not path.is_file():
        raise ValueError(f"{str(directory)!r} has no {MARKER}; give a directory that `robustree harden` finished.")
    with _damage(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(
                f"{str(path)!r} has format {content['format']}; this version reads {FORMAT}: harden again."
            )
        return content


def read_forest_of(directory: Path) -> Forest:
    """The forest over which a checkpoint was hardened.

    Raises:
        ValueError: as `read_record`.
    """
    content = read_record(directory)
    with _damage(directory / MARKER):
        return forest_from_json(content["forest"])


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """What a damaged record raises, as one sentence."""
    try:
        yield
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}): restore it or harden again.") from error


def load_checkpoint(where: Path | str, *, forest: Forest | None = None) -> Checkpoint:
    """Read a hardened model over its own forest, or over another `forest` (new prompts are encoded).

    `where`: its directory, or a hub id (owner/name).

    Raises:
        ValueError: there is no checkpoint of this library, it is incomplete, has another format version, or a file in
            it is not the one that was written.
    """
    directory = find_checkpoint(where) or Path(where)
    content, own = read_record(directory), read_forest_of(directory)
    with _damage(directory / MARKER):
        template, record = content["template"], content["record"]
        space = dict(content["head"]["space"])
        head = Head(
            space=_SPACES[space.pop("name")](**space),
            scale=float(content["head"]["scale"]),
            depths=Depths(**content["head"]["depths"]),
        )
        written = dict(content.get("files", {}))  # checkpoints from before files were hashed have none
    _check_files(directory, written)
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


def _check_files(directory: Path, written: Mapping[str, str]) -> None:
    for name, digest in written.items():
        path = directory / name
        if not path.is_file():
            raise ValueError(f"{str(path)!r} is missing: restore it or harden again.")
        if file_digest(path) != digest:
            raise ValueError(
                f"{str(path)!r} is not the file that was written (its sha256 differs): it was damaged or replaced; "
                "restore it or harden again."
            )


def file_digest(path: Path) -> str:
    """The sha256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def complete_files(directory: Path, *, marker: str) -> Iterator[Path]:
    """A temporary directory whose files move into `directory` when the block ends well, and vanish otherwise.

    The file named `marker` leaves first and arrives last: where it stands, all the others are whole and belong to it.
    """
    new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{UNFINISHED}-", dir=directory))
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
        if new and not any(directory.iterdir()):
            directory.rmdir()


def add_to_card(directory: Path, **entries: Any) -> None:
    """Put entries such as `figures` and `licence` into a checkpoint's record and write its model card again.

    Raises:
        ValueError: as `read_record`.
    """
    content, forest = read_record(directory) | entries, read_forest_of(directory)
    with tempfile.TemporaryDirectory() as fresh:
        write_card(Path(fresh), forest, content)
        for file in sorted(Path(fresh).iterdir()):
            write_whole(directory / file.name, file.read_bytes())
    write_whole(directory / MARKER, json.dumps(content, indent=1) + "\n")


def device_of(model: torch.nn.Module) -> torch.device:
    """Where a module's weights are."""
    return next(model.parameters()).device


def weights_digest(model: TreeModel) -> str:
    """The sha256 (hex) of what decides a model's scores: its weights, node texts and head."""
    return tensors_digest({**model.state_dict(), "text_features": model.text_features}, about=repr(model.head))


def tensors_digest(tensors: Mapping[str, Tensor], *, about: str) -> str:
    """The sha256 (hex) of a text and of named tensors."""
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
