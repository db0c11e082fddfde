"""A row's hardening as a command line, for launchers and other machines; a reproduction takes up what it made."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from robustree.geometry import Poincare
from robustree.methods import AGFT, FARE, PMGAFT, Hierarchical, TeCoA
from robustree.reproducing.place import Place
from robustree.reproducing.tables import Candidate

_NAMES = {TeCoA: "tecoa", FARE: "fare", PMGAFT: "pmg-aft", AGFT: "agft", Hierarchical: "hierarchical"}


def harden_command(candidate: Candidate, place: Place) -> list[str]:
    """The words of `robustree harden` that make a candidate where a reproduction looks for it.

    Raises:
        ValueError: the candidate is not hardened.
    """
    scale, recipe = place.scale, place.scale.recipe(candidate)
    if recipe is None:
        raise ValueError(f"{candidate.name} is a pretrained model: it is not hardened.")
    root = place.data_root or "ROOT"
    words = ["robustree", "harden", _NAMES[type(recipe.method)]]
    options: dict[str, Any] = {
        "model": scale.models.get(candidate.backbone, candidate.backbone),
        "data": place.training() or f"{scale.training}={root}/{scale.training}",
        "trees": scale.trees[: candidate.trees],
        "output": place.checkpoint(candidate),
        "threat.eps": f"{255 * recipe.threat.eps:g}/255",
        "attack.steps": recipe.attack.steps,
        "attack.step_size": recipe.attack.step_size,
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
        "micro_batches": recipe.micro_batches,
        "lr": recipe.lr,
        "weight_decay": recipe.weight_decay,
        "warmup": recipe.warmup,
        "seed": recipe.seed,
    }
    if isinstance(recipe.space, Poincare):
        options["curvature"] = recipe.space.curvature
    for field in fields(recipe.method):  # type: ignore[arg-type]
        value = getattr(recipe.method, field.name)
        if value != field.default:
            options[field.name] = value
    for name, value in options.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return words
