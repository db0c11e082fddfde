"""Processes and devices: the only file that knows the launcher (Hugging Face Accelerate).

Everything else asks this object. Start several processes with `torchrun --nproc-per-node N -m robustree harden ...`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from robustree.processes import noticing_lost_processes
from robustree.training.sharding import shard
from robustree.tree_model import TreeModel


class Runtime:
    """Where a run computes and how its processes agree."""

    def __init__(
        self,
        *,
        cpu: bool = False,
        compiled: bool = False,
        activation_checkpointing: bool = False,
        shard_weights: bool = False,
    ) -> None:
        """`cpu`: compute on the CPU even where there is a GPU. `compiled`, `activation_checkpointing`: see
        `training.acceleration`; like the number of processes they belong to no recipe and may change at a resume.
        `shard_weights`: no process holds all weights.

        Raises:
            ValueError: weights shall be shared, and there is one process, or encoders shall be compiled too.
        """
        self._accelerator = Accelerator(cpu=cpu)
        self.compiled = compiled
        self.activation_checkpointing = activation_checkpointing
        self.shards = shard_weights
        if shard_weights and compiled:
            raise ValueError(
                "compiled encoders whose weights are shared are not supported: leave --compile or --shard-weights out."
            )
        if shard_weights and self.world == 1:
            raise ValueError(
                "the weights of one process cannot be shared: start several (torchrun --nproc-per-node 2 -m robustree "
                "harden ...), or leave --shard-weights out."
            )

    @property
    def device(self) -> torch.device:
        return self._accelerator.device

    @property
    def rank(self) -> int:
        return self._accelerator.process_index

    @property
    def world(self) -> int:
        return self._accelerator.num_processes

    @property
    def is_main(self) -> bool:
        return self._accelerator.is_main_process

    def placed(self, model: TreeModel) -> TreeModel:
        """The model on this process's device; a copy, if the weights are shared among processes."""
        return shard(model, self.device, self.world) if self.shards else model.to(self.device)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module to train through; attacks keep using the module itself."""
        if self.shards:
            return model
        wrapped = self._accelerator.prepare_model(model)
        if isinstance(wrapped, DistributedDataParallel):
            # No exchange in a forward pass: processes may differ in how many they make, and in which one memory ends.
            wrapped.broadcast_buffers = False
        return wrapped

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    def accumulate(self, model: nn.Module, *, last: bool):
        """A block whose gradients are exchanged between processes only if it is the `last` of a step."""
        if last or self.world == 1 or self.shards:
            return torch.enable_grad()
        return self._accelerator.no_sync(model)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        with self._exchange():
            return cast(Tensor, self._accelerator.reduce(value, reduction="mean"))

    def any(self, flag: bool) -> bool:
        """Whether at least one process says so; every process asks at the same point, so that all stop together."""
        if self.world == 1:
            return flag  # without waiting for the device
        return bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0)

    def differ(self, value: int) -> bool:
        """Whether the processes have different values."""
        with self._exchange():
            first = broadcast(torch.tensor(value, device=self.device))
        return self.any(value != int(first))

    def wait(self) -> None:
        """Return once every process has arrived here."""
        with self._exchange():
            self._accelerator.wait_for_everyone()

    def free_memory(self) -> None:
        """Give back what the allocator keeps for later."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _exchange(self) -> AbstractContextManager[None]:
        return noticing_lost_processes() if self.world > 1 else nullcontext()
