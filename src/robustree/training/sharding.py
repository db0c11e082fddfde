"""Weights that no process holds whole: FSDP2, for encoders beyond one GPU.

Each process keeps its part of every weight, gradient and moment; a layer is gathered when it computes, in the attack
too, and given up after. Accelerate leaves this out on CPUs, where it is tested, so torch is asked directly."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeGuard, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

from robustree.tree_model import TreeModel


def shard(model: TreeModel, device: torch.device, world: int) -> TreeModel:
    """A copy of `model` whose weights are spread over all processes, layer by layer; the model stays as it is."""
    # Half a second of imports, which a run that spreads nothing does without.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    spread = copy.deepcopy(model)
    mesh = init_device_mesh(device.type, (world,))
    lists = [module for module in spread.image_encoder.modules() if isinstance(module, nn.ModuleList)]
    for layer in [layer for found in reversed(lists) for layer in found]:  # inner layers before outer ones
        fully_shard(layer, mesh=mesh)
    fully_shard(spread, mesh=mesh)
    return spread.to(device)


def whole(value: Tensor) -> Tensor:
    """The whole of a tensor; one that is spread is gathered, which all processes have to ask for together."""
    return value.full_tensor() if _is_spread(value) else value


def spread_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor as `like` is: spread in the same way, or as it was."""
    if not _is_spread(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def _is_spread(value: Tensor) -> TypeGuard[DTensor]:
    return hasattr(value, "full_tensor")


@torch.no_grad()
def gather_into(model: nn.Module, spread: nn.Module) -> None:
    """Copy the trained weights of a spread copy back into the model, in every process."""
    targets = dict(model.named_parameters())
    for name, parameter in spread.named_parameters():
        if parameter.requires_grad:
            targets[name].copy_(cast(Tensor, whole(parameter.detach())))
