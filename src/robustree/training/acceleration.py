"""The same step in less time or less memory: compiled encoders, and activations that are computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def accelerated(*encoders: nn.Module, compiled: bool = False, activation_checkpointing: bool = False) -> Iterator[None]:
    """Encoders that compute otherwise inside the block, and as before after it; their weights stay where they are.

    `compiled`: by `torch.compile`, one graph for each need of gradients (of pixels in the attack, of weights in the
    loss, none in an audit), whatever their order. `activation_checkpointing`: every layer keeps its input alone for the
    backward pass, also of the attack, and computes the rest again (Chen et al. 2016, arXiv 1604.06174).

    Raises:
        ValueError: an encoder has no list of layers to compute again.
    """
    with ExitStack() as undo:
        for encoder in encoders:
            if activation_checkpointing:
                for layer in layers(encoder):
                    _replace(layer, partial(checkpoint, layer.forward, use_reentrant=False), undo)
            if compiled:
                _replace(encoder, torch.compile(encoder.forward), undo)
        yield


def layers(encoder: nn.Module) -> list[nn.Module]:
    """The layers of an encoder: the members of its outermost lists of several modules.

    Raises:
        ValueError: there are none.
    """
    found: list[nn.Module] = []

    def search(module: nn.Module) -> None:
        for child in module.children():
            if isinstance(child, (nn.ModuleList, nn.Sequential)) and len(child) > 1:
                found.extend(child)
            else:
                search(child)

    search(encoder)
    if not found:
        raise ValueError(
            f"{type(encoder).__name__} has no list of layers whose activations could be computed again: "
            "switch activation_checkpointing off."
        )
    return found


def _replace(module: nn.Module, forward: Callable[..., Any], undo: ExitStack) -> None:
    module.forward = forward  # type: ignore[method-assign]  # the attribute hides the class's method until it is deleted
    undo.callback(delattr, module, "forward")
