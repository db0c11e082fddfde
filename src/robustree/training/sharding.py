"""Weights that no process holds whole: FSDP2, for encoders beyond one GPU.

Each process keeps its part of every weight, gradient and moment; a layer is gathered when it computes, in the attack
too, and given up after. Accelerate leaves this out on CPUs, where it is tested, so torch is asked directly."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from robustree.tree_model import TreeModel


def shard(model: TreeModel, device: torch.device, world: int) -> TreeModel:
    """A copy of `model` whose weights are spread over all processes, layer by layer; the model stays as it is."""
    spread = copy.deepcopy(model)
    mesh = init_device_mesh(device.type, (world,))
    lists = [module for module in spread.image_encoder.modules() if isinstance(module, nn.ModuleList)]
    for layer in [layer for found in reversed(lists) for layer in found]:  # inner layers before outer ones
        fully_shard(layer, mesh=mesh)
    fully_shard(spread, mesh=mesh)
    return spread.to(device)


def whole(value: Tensor) -> Tensor:
    """The whole of a tensor; one that is spread is gathered, which all processes have to ask for together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def spread_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor as `like` is: spread in the same way, or as it was."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


@torch.no_grad()
def gather_into(model: nn.Module, spread: nn.Module) -> None:
    """Copy the trained weights of a spread copy back into the model, in every process."""
    targets = dict(model.named_parameters())
    for name, parameter in spread.named_parameters():
        if parameter.requires_grad:
            targets[name].copy_(cast(Tensor, whole(parameter.detach())))
