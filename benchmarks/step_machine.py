"""The machine of benchmarks/step.py, and the memory that a step takes on it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def machine(device: torch.device) -> str:
    """What the figures were measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = found[0].partition(":")[2].strip() if found else platform.machine()
    return f"{os.cpu_count()} cores of an {name}, no GPU"


def extra_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most bytes that were held during a call beyond those held before it (on a CPU: Linux only)."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    before = _status("VmRSS")
    _RESET.write_text("5")  # the peak starts again at what is held now
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])
