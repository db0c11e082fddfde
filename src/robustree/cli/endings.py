"""How commands end before their end: interrupted, on a full disk, or refused; each with a sentence and an exit code."""

from __future__ import annotations

import errno
import signal
import threading
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


class Terminated(KeyboardInterrupt):
    """SIGTERM, unwinding like Ctrl-C."""


@dataclass
class StopFlag:
    """Whether a signal has asked for an orderly stop, and which (SIGINT or SIGTERM); called by the training loop."""

    signal: int = 0

    def __call__(self) -> bool:
        return bool(self.signal)


def sentence(error: BaseException) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split())


def interrupted(stop: KeyboardInterrupt, kept: str) -> Ended:
    """The ending after Ctrl-C (130) or SIGTERM (143); `kept` says what is on disk and how to go on."""
    ended, number = ("terminated", signal.SIGTERM) if isinstance(stop, Terminated) else ("interrupted", signal.SIGINT)
    return Ended(f"{ended}: {kept}.", 128 + number)


def disk_is_full(error: Exception) -> bool:
    """Whether an error means "no space left on device"; safetensors says so in words only."""
    return getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error)


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
    """The first Ctrl-C or SIGTERM sets the flag, so that the step in progress ends well; a second one ends at once."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if flag.signal:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        flag.signal = number

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
