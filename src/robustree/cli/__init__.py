"""The command line: one module a command, imported when it is called, so that `robustree --help` is instant."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from robustree import __version__
from robustree.cli.endings import DISK_FULL, TERMINATING, Ended, Terminated, disk_is_full, interrupted, sentence

COMMANDS = (
    ("quickstart", "audit, harden twice and compare: the built-in model and images"),
    ("harden", "make a model robust: tecoa, fare, pmg-aft, agft or hierarchical"),
    ("audit", "measure models under attack at every level of the label trees"),
    ("attack", "write adversarial PNGs for a folder of images"),
    ("misspell", "find the spelling of each class name that costs most decisions"),
    ("classify", "say what images show, at every level of every tree"),
    ("demo", "open a local page that attacks an image while you watch"),
    ("tree", "show, check, list, build or compare label trees"),
    ("data", "list, check or fetch data sets"),
    ("reproduce", "make the paper's tables, as far as this machine goes"),
    ("report", "rebuild the report of an audit from its rows"),
    ("leaderboard", "rank the models of a folder of audits on one page"),
    ("convert", "weights between the layouts of transformers and open_clip"),
    ("card", "write the model card of a hardened checkpoint"),
    ("push", "upload a hardened checkpoint to the Hugging Face hub"),
    ("doctor", "say what this machine has, what is missing, and how to install it"),
    ("completion", "print what makes a shell complete commands and options"),
)
"""Commands and what they do, in the order in which a newcomer meets them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    0 done; 1 a run failed (loss not finite, disk full); 2 the input was refused, with one line that says why; 3 a check
    of `audit --strict` failed or asks for a look; 130, 143 and 138 stopped by Ctrl-C, SIGTERM or SIGUSR1.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        _print_help()
        return 0
    if given[0] in ("-V", "--version"):
        print(f"robustree {__version__}")
        return 0
    try:
        with _termination_as_interrupt():
            return _run(given[0], given[1:])
    except Ended as ending:
        return _say(str(ending), ending.code)
    except KeyboardInterrupt as stop:
        ending = interrupted(stop, "nothing was saved")
        return _say(str(ending), ending.code)
    except ValueError as refused:
        return _say(f"error: {sentence(refused)}", 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has left; the exit must not write
        return 128 + signal.SIGPIPE
    except OSError as error:
        if disk_is_full(error):
            return _say(f"error: {DISK_FULL}.", 1)
        if error.filename is None:
            raise
        return _say(f"error: {str(error.filename)!r} cannot be used ({error.strerror}): check the path.", 2)


def _run(name: str, arguments: list[str]) -> int:
    names = [command for command, _ in COMMANDS]
    if name not in names:
        from robustree.cli.parsing import nearest

        raise ValueError(f"there is no command {name!r}{nearest(name, names)}: the commands are {', '.join(names)}.")
    return import_module(f"robustree.cli.{name}").run(arguments)


def _say(message: str, code: int) -> int:
    """Print the last words of a command. Of several processes the first speaks for all, the others only of errors."""
    rank = int(os.environ.get("RANK", "0"))
    if rank == 0:
        print(message, file=sys.stderr)
    elif code < 128:
        print(f"process {rank}: {message}", file=sys.stderr)
    return code


def _print_help() -> None:
    width = max(len(name) for name, _ in COMMANDS)
    lines = [
        "robustree hardens CLIP-like models against adversarial images and audits them",
        "at every level of a label tree.",
        "",
        "usage: robustree COMMAND [options]",
        "",
        *(f"  {name:<{width}}  {about}" for name, about in COMMANDS),
        "",
        "Start with 'robustree quickstart'. Options: robustree COMMAND --help",
    ]
    print("\n".join(lines))


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGUSR1 unwind like Ctrl-C; inside a thread, where Python sets no handlers, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: object) -> None:
        raise Terminated(number)

    before = {number: signal.signal(number, terminate) for number in TERMINATING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
