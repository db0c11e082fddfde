"""`load`: one way in for every layout that a model can lie in.

"nano"                             the built-in model
"efficientnet-minilm"              a pretrained encoder from pip packages, with the extra [efficientnet-minilm]
a directory with config.json       Hugging Face's layout (a hardened checkpoint too)
a directory with open_clip_config.json, or a weights file    OpenAI's and open_clip's layouts
owner/name                         either of the two at the hub
open_clip:MODEL/TAG                whatever the open_clip library opens, with the extra [open_clip]"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from robustree.models import hub, open_clip_library
from robustree.models.efficientnet_minilm import is_assembled, load_assembled
from robustree.models.encoder import VisionLanguageModel
from robustree.models.huggingface import KINDS, Parts, adapt, read_huggingface
from robustree.models.openclip_format import FILES, find_weights, read_openclip
from robustree.models.openclip_geometry import CONFIG, NotPlainError

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")


def load(name: str) -> VisionLanguageModel:
    """The model that `name` says: "nano", "efficientnet-minilm", a directory, a weights file, a hub id, or
    "open_clip:MODEL/TAG".

    Raises:
        ValueError: nothing is there, the architecture is not supported, a tensor or the tokenizer is missing or does
            not fit, the activation of bare weights is not known, or the only weights are a pickle that the
            weights-only reader refuses.
    """
    if name.startswith(open_clip_library.PREFIX):
        return open_clip_library.load_from_library(name.removeprefix(open_clip_library.PREFIX))
    if is_assembled(name):
        return load_assembled(name)
    try:
        parts = read(name)
    except NotPlainError:
        if not open_clip_library.is_installed():
            raise
        return open_clip_library.load_from_library(f"{'local-dir' if Path(name).is_dir() else 'hf-hub'}:{name}")
    return adapt(parts.model, parts.tokenizer, preprocessing=parts.preprocessing, name=name)


def read(name: str) -> Parts:
    """As `load`, not yet taken apart: CLIP and SigLIP alone, and without the open_clip library.

    Raises:
        ValueError: as `load`.
    """
    if is_assembled(name):
        raise ValueError(f"{name!r} is no CLIP, so there is no other layout for it: give a CLIP.")
    path = nano_directory() if name == "nano" else Path(name)
    if path.is_file():
        return read_openclip(path)
    if hub.is_repository(name):
        return _read_repository(name)
    if not path.is_dir():
        raise ValueError(
            f"there is no directory or file {name!r}: give 'nano', a directory with config.json and model.safetensors, "
            "open_clip's weights, or a hub id (owner/name)."
        )
    config, openclip = path / "config.json", (path / CONFIG).is_file()
    if config.is_file() and not (openclip and _is_foreign(config)):
        return read_huggingface(str(path), name)
    if openclip:
        return read_openclip(find_weights(path))
    raise ValueError(
        f"{name!r} has no config.json; a model directory holds config.json and model.safetensors, or {CONFIG} and its "
        "weights: check the path."
    )


def _read_repository(name: str) -> Parts:
    """A repository may hold both layouts; then they are the same model, and Hugging Face's is read."""
    config = hub.find_file(name, "config.json")
    if (config is None or _is_foreign(config)) and hub.find_file(name, CONFIG) is not None:
        weights = next((path for file in FILES if (path := hub.find_file(name, file))), None)
        if weights is None:
            raise ValueError(f"{name!r} has {CONFIG} but none of {', '.join(FILES)}: choose another repository.")
        for file in _TOKENIZER:
            hub.find_file(name, file)
        return read_openclip(weights)
    return read_huggingface(name, name)


def is_cached(repository: str) -> bool:
    """Whether the hub's cache holds a repository's configuration and weights; nothing is asked of the hub."""
    from huggingface_hub import try_to_load_from_cache

    def held(*files: str) -> bool:
        return any(isinstance(try_to_load_from_cache(repository, file), str) for file in files)

    weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", *FILES)
    return hub.is_repository(repository) and held("config.json", CONFIG) and held(*weights)


def _is_foreign(config: Path) -> bool:
    """Whether a config.json is of something else, such as timm, or the image tower alone."""
    try:
        return json.loads(config.read_text(encoding="utf-8")).get("model_type") not in KINDS
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        return True


def nano_directory() -> Path:
    """The directory of the built-in model, in the same layout as any other."""
    return Path(str(files("robustree.models").joinpath("nano")))
