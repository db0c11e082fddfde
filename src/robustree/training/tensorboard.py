"""Training curves in TensorBoard: `train(..., report=TensorBoard(directory))`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from robustree.training.curves import Curves


class TensorBoard(Curves):
    """Curves as TensorBoard reads them; after a resume, what a killed run wrote beyond its state is purged.

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

    def _start(self, first_step: int) -> None:
        self._writer = self._kind(log_dir=str(self._directory), purge_step=first_step)

    def _write(self, step: int, logs: Mapping[str, float]) -> None:
        for name, value in logs.items():
            self._writer.add_scalar(name, value, step)

    def _finish(self) -> None:
        self._writer.close()
