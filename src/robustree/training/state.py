"""The state of an unfinished run: weights, optimiser moments and the step, in one safetensors file written atomically.

Data order, noise and learning rate are functions of (seed, step, chunk), so this is all that an exact resume needs.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import nn

from robustree.checkpoint import write_whole

FILE = "state.safetensors"


def save_state(directory: Path, model: nn.Module, optimiser: torch.optim.Optimizer, step: int, identity: str) -> None:
    """Write the state after `step` steps. `identity` names the run (recipe and data), so that no other run resumes
    from it."""
    tensors = {f"model.{name}": p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value.contiguous() for name, value in moments.items()}
    metadata = {"step": str(step), "identity": identity}
    write_whole(directory / FILE, serialise(tensors, metadata=metadata))


def load_state(directory: Path, model: nn.Module, optimiser: torch.optim.Optimizer, identity: str) -> int:
    """Restore a state in place and return its step; 0 when the directory holds none.

    Raises:
        ValueError: the file is damaged, or belongs to a run with another recipe, model or data.
    """
    path = directory / FILE
    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safetensors iterates only over keys())
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}): delete it to start again.") from error
    if not metadata.keys() >= {"step", "identity"}:
        raise ValueError(f"{str(path)!r} is no state of a run: delete it to start again.")
    if metadata["identity"] != identity:
        raise ValueError(
            f"{str(directory)!r} holds another run ({_difference(metadata['identity'], identity)}): "
            "choose another output directory."
        )
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    state: dict[int, dict[str, torch.Tensor]] = {}
    with torch.no_grad():
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "model":
                parameters[rest].copy_(value)
            else:
                index, _, moment = rest.partition(".")
                state.setdefault(int(index), {})[moment] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return int(metadata["step"])


def _difference(found: str, wanted: str) -> str:
    """The first entry in which two identities (JSON objects) differ."""
    old, new = json.loads(found), json.loads(wanted)
    name = next(key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key))
    return f"{name} was {old.get(name)!r}, now {new.get(name)!r}"
