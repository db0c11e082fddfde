"""How commands end before their end: interrupted, on a full disk, or refused; each with a sentence and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

DISK_FULL = "the disk is full; files that were written before are whole: free some space and run the same command again"


class Ended(Exception):
    """A command ended early, and its message says in what state; `code` is the exit code."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


TERMINATING = (signal.SIGTERM, signal.SIGUSR1)
"""What asks a command to leave: SIGUSR1 is what many Slurm scripts send before their time is over."""
ECHO = 1.0
"""Seconds in which a second Ctrl-C is taken for the first."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGUSR1, unwinding like Ctrl-C."""

    def __init__(self, number: int = signal.SIGTERM):
        super().__init__()
        self.signal = number


@dataclass
class StopFlag:
    """Whether a signal has asked for an orderly stop, and which; called by the training loop."""

    signal: int = 0

    def __call__(self) -> bool:
        return bool(self.signal)


def sentence(error: BaseException) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split())


def interrupted(stop: KeyboardInterrupt, kept: str) -> Ended:
    """The ending after Ctrl-C (130), SIGTERM (143) or SIGUSR1 (138); `kept` says what is on disk and how to go on."""
    ended, number = ("terminated", stop.signal) if isinstance(stop, Terminated) else ("interrupted", signal.SIGINT)
    return Ended(f"{ended}: {kept}.", 128 + number)


def disk_is_full(error: Exception) -> bool:
    """Whether an error means "no space left on device" or "quota exceeded"; safetensors says so in words only."""
    number, words = getattr(error, "errno", None), (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
    return number in (errno.ENOSPC, errno.EDQUOT) or any(phrase in str(error) for phrase in words)


@contextmanager
def keeping(kept: str) -> Iterator[None]:
    """Say what is `kept` when Ctrl-C, SIGTERM or a full disk ends the block."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise interrupted(stop, kept) from stop
    except Exception as error:
        if not disk_is_full(error):
            raise
        raise Ended(f"error: the disk is full; {kept}.", 1) from error


@contextmanager
def orderly_stop() -> Iterator[StopFlag]:
    """The first Ctrl-C, SIGTERM or SIGUSR1 sets the flag, so that the step in progress ends well; another Ctrl-C ends
    at once, unless it is the echo of the first: launchers pass on to their processes what these have received already.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    asked = 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if flag.signal and number == signal.SIGINT and time.monotonic() > asked + ECHO:
            raise KeyboardInterrupt
        if not flag.signal:
            flag.signal, asked = number, time.monotonic()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, *TERMINATING)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
