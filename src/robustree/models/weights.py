"""Weight files: safetensors, or a pickle through torch's weights-only reader, which executes nothing."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

_NESTS = ("vision_encoder_state_dict", "state_dict", "model_state_dict", "model")
"""Keys under which trainers keep the weights beside optimiser states and counters; the first that is there counts."""
_WRAPPERS = ("module.", "model.", "_orig_mod.")
"""What DataParallel, a wrapping module and torch.compile put before every name."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a file, taken out of a training checkpoint's nesting and freed of wrappers' prefixes.

    Raises:
        ValueError: a TorchScript archive, a pickle that the weights-only reader refuses, a damaged file, or no tensors.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{str(path)!r} is no readable safetensors file ({error}): fetch it again.") from error
    content: Any = read_pickle(path)
    while isinstance(content, dict) and (nest := next((key for key in _NESTS if key in content), None)):
        content = content[nest]
    if not isinstance(content, dict) or not content or not all(isinstance(name, str) for name in content):
        raise ValueError(f"{str(path)!r} holds no named tensors: give a state dict, or a checkpoint that has one.")
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if len(tensors) < len(content):
        other = next(name for name in content if name not in tensors)
        raise ValueError(f"{str(path)!r} has {other!r}, which is no tensor, among its weights: give the state dict.")
    while prefix := next((p for p in _WRAPPERS if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def read_pickle(path: Path, *, device: str = "cpu") -> Any:
    """What a .pt or .bin file holds, without executing anything.

    Raises:
        ValueError: a TorchScript archive, or a pickle that the weights-only reader refuses.
    """
    if _is_torchscript(path):
        raise ValueError(
            f"{str(path)!r} is a TorchScript archive, which is a program: write its weights once with "
            "torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), 'weights.pt') and give that file."
        )
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # bytes that are no checkpoint stop the reader in any way
        raise refused(path) from error


def refused(path: Path) -> ValueError:
    """The refusal of a pickle that would have to be executed."""
    return ValueError(
        f"{str(path)!r} is a pickle that the weights-only reader refuses, so it was not opened: "
        "convert it to model.safetensors."
    )


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
