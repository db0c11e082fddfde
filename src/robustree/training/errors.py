"""Why a run could not go on, or went on otherwise than asked."""

from __future__ import annotations

import torch


class StoppedError(RuntimeError):
    """The run cannot go on; the states that were saved before are whole."""


class NonFiniteError(StoppedError):
    """The loss or a gradient was not finite; the weights are those of the step before."""


class NotEnoughMemoryError(StoppedError):
    """A micro-batch did not fit into memory, nor did half of it."""


class ChangedCourseWarning(UserWarning):
    """The run goes on otherwise than asked, and the message says how: from an older state, or in smaller parts."""


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means that memory ran out; torch's CPU allocator says so in words only."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)
