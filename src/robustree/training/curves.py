"""What writes a run's curves: a `report` for the training loop that is opened at the first step it hears of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from robustree.training.loop import Progress


class Curves(ABC):
    """Writes every logged number as one curve, over steps from 1; a context manager, so that the last steps are kept.

    A run that resumes goes on in the same curves, from the step after the state that it resumed from.
    """

    _open = False

    def __call__(self, progress: Progress) -> None:
        if not self._open:  # only now is the first step known, which a resumed run starts from
            self._start(progress.step)
            self._open = True
        self._write(progress.step, progress.logs)

    def close(self) -> None:
        """Write what is left and close; nothing was opened if no step was made."""
        if self._open:
            self._finish()
            self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _start(self, first_step: int) -> None:
        """Open the record; a `first_step` above 1 is that of a resumed run."""

    @abstractmethod
    def _write(self, step: int, logs: Mapping[str, float]) -> None:
        """Write one step."""

    @abstractmethod
    def _finish(self) -> None:
        """Write what is left, and close the record."""
