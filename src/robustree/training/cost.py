"""What a step costs: floating-point operations, the machine's matmul peak, memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from robustree.training.loop import select_trained
from robustree.training.recipe import Recipe
from robustree.training.step import training_step
from robustree.tree_model import Precision, TreeModel

_SIDE, _REPEATS = 1024, 5


class Operations(TorchDispatchMode):
    """Counts the floating-point operations of matrix products and convolutions inside the block, forward and backward;
    a multiply-add is two. Attention is computed by plain products meanwhile, because torch does not count all kernels.
    """

    total: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


@contextmanager
def counted() -> Iterator[Operations]:
    """The operations of the block."""
    with sdpa_kernel(SDPBackend.MATH), Operations() as operations:
        yield operations


def operations_an_image(raw: TreeModel, recipe: Recipe, side: int) -> float:
    """Floating-point operations of one training step of `recipe` divided by its images, whose `side` is given: counted
    on steps of one and of two images, and drawn on as a line. Nothing is trained."""
    device = raw.text_features.device
    needed = [parameter.requires_grad for parameter in raw.parameters()]
    select_trained(raw, text=recipe.method.trains_text)
    trained = [parameter for parameter in raw.parameters() if parameter.requires_grad]

    def step(images: int) -> int:
        with counted() as operations:
            batch = torch.rand(images, 3, side, side, device=device), torch.arange(images, device=device) % 2
            generator = torch.Generator().manual_seed(0)
            rest = (recipe.method, recipe.attack, recipe.threat, *batch, generator)
            loss, _ = training_step(raw, raw, torch.no_grad()(raw), *rest)
            torch.autograd.grad(loss, trained, allow_unused=True)
        return operations.total

    one, two = step(1), step(2)
    for parameter, was in zip(raw.parameters(), needed, strict=True):
        parameter.requires_grad_(was)
    part = recipe.batch_size / recipe.micro_batches
    return (one + (part - 1) * (two - one)) / part


def matmul_peak(device: torch.device, precision: Precision, clock: Callable[[], float] = time.perf_counter) -> float:
    """Floating-point operations a second of square matrix products on `device`, the best of five."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side = _SIDE if device.type == "cpu" else 8 * _SIDE
    left, right = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min(timed(lambda: left @ right, device, clock) for _ in range(_REPEATS + 1))


def timed(work: Callable[[], object], device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of a call, the work that it leaves to a GPU included."""
    wait: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    started = clock()
    work()
    wait()
    return clock() - started


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held so far: on a GPU in tensors, else in all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def rounded(value: float) -> str:
    """At least two digits: 0.0042, 3.1, 1,234."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
