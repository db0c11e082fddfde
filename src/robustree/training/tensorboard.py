"""Training curves in TensorBoard: `train(..., report=TensorBoard(directory))`."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from robustree.training.loop import Progress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """A `report` for the training loop that writes every logged number as one curve, over steps from 1.

    After a resume the curves go on from the resumed step: what a killed run wrote beyond it is purged. Use it as a
    context manager, or call `close`, to be sure that the last steps are on disk.

    Raises:
        ValueError: the tensorboard package is not installed.
    """

    def __init__(self, directory: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                "TensorBoard curves need the tensorboard package, which is not installed: "
                "run pip install 'robustree[tensorboard]'."
            ) from error
        self._kind = SummaryWriter
        self._directory = Path(directory)
        self._writer: SummaryWriter | None = None

    def __call__(self, progress: Progress) -> None:
        if self._writer is None:  # only now is the first step known, which a resumed run starts from
            self._writer = self._kind(log_dir=str(self._directory), purge_step=progress.step)
        for name, value in progress.logs.items():
            self._writer.add_scalar(name, value, progress.step)

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
