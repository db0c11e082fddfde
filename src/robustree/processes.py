"""The processes that share one audit, as their launcher names them in the environment (RANK and WORLD_SIZE).

They exchange JSON, between the parts of the work and never inside an attack; only the first one writes and prints."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_PATIENCE = timedelta(days=7)  # a process may attack for hours; one that has died is noticed at once


class LostProcessError(RuntimeError):
    """Another process of the run ended before its work was done."""


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `world`; alone unless told otherwise."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def told(self, value: Any) -> Any:
        """The first process's value (JSON), in every process."""
        return value if self.world == 1 else self._gathered(value)[0]

    def collected(self, value: Any) -> list[Any]:
        """Every process's value (JSON), by rank."""
        return [value] if self.world == 1 else self._gathered(value)

    def _gathered(self, value: Any) -> list[Any]:
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with noticing_lost_processes():
            lengths = [torch.zeros(1, dtype=torch.long) for _ in range(self.world)]
            dist.all_gather(lengths, torch.tensor([len(content)]))
            longest = int(max(lengths))
            padded = torch.nn.functional.pad(content, (0, longest - len(content)))
            found: list[Tensor] = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.world)]
            dist.all_gather(found, padded)
        return [json.loads(part[: int(n)].numpy().tobytes()) for part, n in zip(found, lengths, strict=True)]


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """The processes that the launcher started, connected for as long as the block lasts."""
    rank, world = process_number()
    if world > 1:
        with noticing_lost_processes():
            dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Processes(rank, world)
    finally:
        if world > 1:
            dist.destroy_process_group()


def process_number() -> tuple[int, int]:
    """(rank, world) of this process; (0, 1) where no launcher has set them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def noticing_lost_processes() -> Iterator[None]:
    """Around an exchange between processes: torch has no error of its own for the end of another process.

    Raises:
        LostProcessError: the exchange failed.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise LostProcessError(
            f"the exchange with the other processes failed, most likely because one of them ended ({reason})"
        ) from error
