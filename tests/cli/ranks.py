"""Command lines in several processes, as a launcher starts them: `ranks.py WORLD DIRECTORY WORDS...`.

Processes are forked after the imports, which take seconds. Rank r prints into `DIRECTORY/r.out` and `DIRECTORY/r.err`;
a JSON list of the exit codes is printed. With DIE_AT=n the last rank is killed at the n-th chunk that it attacks.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustree.auditing import audit
from robustree.cli import main


def member(rank: int, world: int, port: int, directory: Path, words: list[str]) -> int:
    signal.alarm(200)  # a process that waits for the others for ever ends with the test
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(directory / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    if "DIE_AT" in os.environ and rank == world - 1:
        _die_at(int(os.environ["DIE_AT"]))
    return main(words)


def _die_at(count: int) -> None:
    original, calls = audit._chunk, []

    def chunk(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    audit._chunk = chunk


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.optim.AdamW([nn.Parameter(torch.zeros(1))])  # the first optimiser imports for a second
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children, world = [], int(sys.argv[1])
    for rank in range(world):
        child = os.fork()
        if child == 0:
            code = member(rank, world, port, Path(sys.argv[2]), sys.argv[3:])
            sys.stdout.flush()
            os._exit(code)
        children.append(child)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
