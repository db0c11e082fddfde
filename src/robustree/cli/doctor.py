"""`robustree doctor`: what this machine has, what is missing, and the command that installs it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

from robustree import __version__
from robustree.cli.parsing import parse

SECONDS = 1.0
"""How long the speed of the built-in model is measured."""
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to print."""

    json: bool = False
    """Print one JSON object instead of a table."""


@dataclass(frozen=True)
class Package:
    """A package that is asked for: the versions that would do, and the one that is there, if any."""

    name: str
    wanted: str
    found: str | None
    fits: bool

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.name} is missing"
        return f"{self.name} {self.found}" + ("" if self.fits else f" (needs {self.wanted})")


def run(arguments: Sequence[str]) -> int:
    options = parse(Options, arguments, command="doctor", about="Say what this machine has and what is missing.")
    parts = requirements(metadata.requires("robustree") or [])
    ready = all(package.fits for package in parts[""])
    machine = inspect_machine() if ready else {}
    if options.json:
        content = {name or "core": [asdict(package) for package in packages] for name, packages in parts.items()}
        print(json.dumps({"robustree": __version__, "packages": content, "machine": machine}, indent=1))
    else:
        _print(parts, machine)
    return 0 if ready else 1


def requirements(lines: Sequence[str]) -> dict[str, list[Package]]:
    """The packages of the core, under "", and of each extra, from a distribution's requirement lines."""
    parts: dict[str, list[Package]] = {"": []}
    for requirement in map(Requirement, lines):
        for extra in _extras(requirement):
            parts.setdefault(extra, []).append(_looked_up(requirement))
    return parts


def _extras(requirement: Requirement) -> Iterator[str]:
    """The extras that ask for a requirement on this machine; "" for the core."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        yield ""
        return
    words = str(requirement.marker).replace("'", '"').split('"')
    yield from (word for word in words[1::2] if requirement.marker.evaluate({"extra": word}))


def _looked_up(requirement: Requirement) -> Package:
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Package(requirement.name, str(requirement.specifier), None, False)
    fits = requirement.specifier.contains(found, prereleases=True)
    return Package(requirement.name, str(requirement.specifier), found, fits)


def inspect_machine() -> dict[str, Any]:
    """Devices, memory, disk and the measured speed of the built-in model."""
    import torch

    from robustree.models.loading import nano_directory

    devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None,
        "gpus": [{"name": device.name, "memory": device.total_memory} for device in devices],
        "bf16": torch.cuda.is_bf16_supported() if devices else None,
        "disk_free": shutil.disk_usage(Path.cwd()).free,
        "model_cache": str(cache),
        "nano_gradients_per_second": measured_speed(SECONDS) if nano_directory().is_dir() else None,
    }


def measured_speed(seconds: float) -> float:
    """Input gradients a second of the built-in model, on the GPU if there is one, in batches of 32."""
    import torch

    from robustree.cli.loading import choose_device
    from robustree.models import load

    device = choose_device(None)
    encoder = load("nano").image_encoder.to(device).requires_grad_(False)
    side = encoder.preprocessing.resolution
    images = torch.rand(32, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
    count, started = -1, 0.0  # the first batch warms up
    while count < 1 or time.perf_counter() - started < seconds:
        (gradient,) = torch.autograd.grad(encoder(images).square().sum(), images)
        float(gradient[0, 0, 0, 0])  # waits for the device
        count += 1
        if count == 0:
            started = time.perf_counter()
    return 32 * count / (time.perf_counter() - started)


def _print(parts: dict[str, list[Package]], machine: dict[str, Any]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_row("robustree", __version__)
    core = parts[""]
    table.add_row("packages", ", ".join(map(str, core)))
    if missing := [package for package in core if not package.fits]:
        wanted = " ".join(f"'{package.name}{package.wanted}'" for package in missing)
        table.add_row("", f"to mend: pip install {wanted}")
    if machine:
        gpus = ", ".join(f"{gpu['name']} ({gpu['memory'] / GIB:.0f} GiB)" for gpu in machine["gpus"])
        table.add_row("system", f"Python {machine['python']}, {machine['system']}")
        memory = f", {machine['memory'] / GIB:.0f} GiB memory" if machine["memory"] else ""
        table.add_row("processor", f"{machine['cores']} cores, {machine['threads']} threads in use{memory}")
        table.add_row("gpu", gpus or "none: everything runs on the processor")
        if gpus:
            table.add_row("precision", "bf16 is supported" if machine["bf16"] else "no bf16: train in fp32")
        table.add_row(
            "disk", f"{machine['disk_free'] / GIB:.0f} GiB free here; models of the hub in {machine['model_cache']}"
        )
        if machine["nano_gradients_per_second"]:
            table.add_row(
                "speed", f"{machine['nano_gradients_per_second']:.0f} input gradients a second (built-in model)"
            )
    for name, packages in parts.items():
        if name:
            away = [package for package in packages if not package.fits]
            state = f"{', '.join(map(str, away))}: pip install 'robustree[{name}]'" if away else "ready"
            table.add_row(f"[{name}]", state)
    Console(highlight=False, markup=False, soft_wrap=True).print(table)
