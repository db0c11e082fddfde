"""What stands beside every figure: versions, machine and command."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

import robustree


def provenance(command: str, *, threads: str = "one thread a run") -> dict[str, Any]:
    """With what, on what and by which command figures on a CPU were made."""
    return {
        "versions": {
            "robustree": robustree.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "machine": f"{machine(torch.device('cpu'))}, {threads}",
        "command": command,
    }


def machine(device: torch.device) -> str:
    """What the figures were measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = found[0].partition(":")[2].strip() if found else platform.machine()
    return f"{os.cpu_count()} cores of an {name}, no GPU"
