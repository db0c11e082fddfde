"""Progress bars: what is being done, how far it is, images a second, time left."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class Bar:
    """One phase of a run as one line. Work that an earlier run did moves the bar but not the speed."""

    def __init__(self, console: Console, title: str, total: float):
        self._progress = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=24, complete_style="cyan", finished_style="cyan"),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[speed]:>14}", style="dim"),
            TextColumn("{task.fields[left]:>10}", style="dim"),
            TextColumn("{task.fields[doing]}", style="dim"),
            console=console,
        )
        self._task = self._progress.add_task(f"{title:<20}", total=total, speed="", left="", doing="")
        self._total = total
        self._started, self._images, self._work = 0.0, 0, 0.0

    def __enter__(self) -> Bar:
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._progress.start()
            seconds = time.monotonic() - self._started
            left = clock(seconds) if self._work else "was done"
            self._progress.update(self._task, completed=self._total, left=left, doing="")
        if self._progress.live.is_started:
            self._progress.stop()

    def update(self, completed: float, *, images: int, work: float, doing: str) -> None:
        """`completed` of the total is done; `images` and `work` were done by this run since the last call."""
        self._progress.start()  # not before: a refusal is one line, without an empty bar above it
        self._images, self._work = self._images + images, self._work + work
        seconds = max(time.monotonic() - self._started, 1e-9)
        speed = f"{self._images / seconds:,.0f} images/s" if self._images else ""
        left = f"{clock(seconds / self._work * (self._total - completed))} left" if self._work else ""
        self._progress.update(self._task, completed=completed, speed=speed, left=left, doing=doing)


def clock(seconds: float) -> str:
    """1:05 or 2:03:09."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
