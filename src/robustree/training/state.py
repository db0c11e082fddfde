"""The state of an unfinished run: weights, optimiser moments and the step, in one safetensors file written atomically.

Data order, noise and learning rate are functions of (seed, step, chunk), so this is all that an exact resume needs.
The last two states are kept, and each carries the sha256 of what it holds: one that was damaged is not used.
"""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from robustree.checkpoint import tensors_digest
from robustree.training.errors import ChangedCourseWarning
from robustree.training.order import Division
from robustree.training.sharding import spread_like, whole
from robustree.writing import write_whole

STATE, BEFORE = "state.safetensors", "state-before.safetensors"
_ABOUT = "state"


@dataclass(frozen=True, kw_only=True)
class Reached:
    """How far a run is: `step` steps are done, and batches are divided by `division`.

    `file` says so; `damage` is what was wrong with a newer one, if there was."""

    step: int
    division: Division
    file: str = STATE
    damage: str = ""


def state_tensors(model: nn.Module, optimiser: torch.optim.Optimizer, *, keep: bool) -> dict[str, Tensor]:
    """Trained weights and moments, whole: every process calls this, and those that do not `keep` them get nothing."""
    parts = {f"model.{name}": p.detach() for name, p in model.named_parameters() if p.requires_grad}
    for index, moments in optimiser.state_dict()["state"].items():
        parts |= {f"optimiser.{index}.{name}": value for name, value in moments.items()}
    found = {}
    for name, part in parts.items():
        value = whole(part)  # one at a time: together they may not fit
        if keep:
            found[name] = value.contiguous() if value is part else value.cpu()
    return found


def save_state(directory: Path, tensors: dict[str, Tensor], reached: Reached, identity: str) -> None:
    """Write the state, and keep the one before it. `identity` names the run (recipe and data), so that no other run
    resumes from it."""
    about = {"step": reached.step, "division": asdict(reached.division), "identity": identity}
    about["sha256"] = _digest(tensors, about)
    # One entry: safetensors writes several in any order, and equal states shall be equal files.
    content = serialise(tensors, metadata={_ABOUT: json.dumps(about, sort_keys=True)})
    if (directory / STATE).exists():
        os.replace(directory / STATE, directory / BEFORE)  # at any moment at least one of the two is whole
    write_whole(directory / STATE, content)


def load_state(directory: Path, model: nn.Module, optimiser: torch.optim.Optimizer, identity: str) -> Reached | None:
    """Restore the newest whole state in place; None when the directory holds none.

    Raises:
        ValueError: no state is whole, or they belong to a run with another recipe, model or data.
    """
    paths = [path for path in (directory / STATE, directory / BEFORE) if path.exists()]
    damage: list[str] = []
    for path in paths:
        try:
            tensors, about = _read(path)
        except _Damaged as error:
            damage.append(f"{str(path)!r} {error}")
            continue
        if about["identity"] != identity:
            raise ValueError(
                f"{str(directory)!r} holds another run ({_difference(about['identity'], identity)}): "
                "choose another output directory."
            )
        _restore(tensors, model, optimiser)
        return Reached(
            step=about["step"], division=Division(**about["division"]), file=path.name, damage="".join(damage)
        )
    if damage:
        raise ValueError(f"{', and '.join(damage)}: delete {'it' if len(damage) == 1 else 'both'} to start again.")
    return None


def adopt_state(directory: Path, reached: Reached) -> None:
    """Make the state that was restored the newest one, so that a damaged one is not kept in place of a whole one.

    Warns (ChangedCourseWarning) where there was a damaged one."""
    if reached.damage:
        warnings.warn(
            f"{reached.damage}: the run goes on from the state before it, of step {reached.step}.",
            ChangedCourseWarning,
            stacklevel=2,
        )
    if reached.file != STATE:
        os.replace(directory / reached.file, directory / STATE)


class _Damaged(Exception):
    """What is wrong with a file, as the end of a sentence about it."""


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safetensors iterates only over keys())
    except SafetensorError as error:
        raise _Damaged(f"is damaged ({error})") from error
    if _ABOUT not in metadata:
        raise _Damaged("is no state of a run")
    try:
        about = json.loads(metadata[_ABOUT])
        written = about.pop("sha256")
    except (ValueError, KeyError, AttributeError) as error:
        raise _Damaged(f"is damaged ({error})") from error
    if written != _digest(tensors, about):
        raise _Damaged("is damaged (its sha256 differs from the one that was written)")
    return tensors, about


def _digest(tensors: dict[str, Tensor], about: dict[str, Any]) -> str:
    return tensors_digest(tensors, about=json.dumps(about, sort_keys=True))


def _restore(tensors: dict[str, Tensor], model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    with torch.no_grad():
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "model":
                parameters[rest].copy_(spread_like(value, parameters[rest]))
            else:
                index, _, moment = rest.partition(".")
                fits = moment != "step"
                state.setdefault(int(index), {})[moment] = spread_like(value, trained[int(index)]) if fits else value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _difference(found: str, wanted: str) -> str:
    """The first entry in which two identities (JSON objects) differ."""
    old, new = json.loads(found), json.loads(wanted)
    name = next(key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key))
    return f"{name} was {old.get(name)!r}, now {new.get(name)!r}"
