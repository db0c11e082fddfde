"""Training curves for Weights & Biases: `train(..., report=WandB(directory))`; without network unless asked."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robustree.training.curves import Curves
from robustree.training.errors import ChangedCourseWarning


class WandB(Curves):
    """Curves in `directory`/wandb, with the recipe as `config`; WANDB_MODE is offline unless the environment says else.

    A resumed run writes a further part under the id of the last one: `wandb sync DIRECTORY/wandb/offline-run-*` makes
    one run of them. Of a step that a killed run had written already, the first part counts; both hold the same numbers,
    because a resume is exact. Where wandb fails, a warning says so and the run goes on without it.

    Raises:
        ValueError: the wandb package is not installed.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any]):
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when wandb is imported
        try:
            import wandb
        except ImportError as error:
            raise ValueError(
                "curves for Weights & Biases need the wandb package, which is not installed: "
                "run pip install 'robustree[wandb]'."
            ) from error
        self._wandb = wandb
        self._directory = Path(directory)
        self._config = dict(config)
        self._run: Any = None

    def _start(self, first_step: int) -> None:
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        known = self._last_id() if first_step > 1 else None
        self._directory.mkdir(parents=True, exist_ok=True)
        self._run = self._tried(
            lambda: self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", "robustree"),
                name=self._directory.resolve().name,
                dir=str(self._directory),
                config=self._config,
                id=known,
                resume="allow" if known and mode == "online" else None,
                mode=mode,
                settings=self._wandb.Settings(console="off", silent=True),
            )
        )

    def _write(self, step: int, logs: Mapping[str, float]) -> None:
        run = self._run
        if run is not None:
            self._tried(lambda: run.log(dict(logs), step=step))

    def _finish(self) -> None:
        run = self._run
        if run is not None:
            self._tried(run.finish)

    def _tried(self, call: Callable[[], Any]) -> Any:
        """What a call of wandb returns; where it fails, whatever the reason, nothing more is written."""
        try:
            return call()
        except Exception as error:
            self._run = None
            warnings.warn(
                f"wandb failed ({' '.join(str(error).split())}): the run goes on without it; log.csv has every step.",
                ChangedCourseWarning,
                stacklevel=2,
            )
            return None

    def _last_id(self) -> str | None:
        """The id of the newest run in the directory: its folder is named (offline-)run-TIME-ID."""
        runs = sorted(self._directory.glob("wandb/*run-*-*"), key=lambda path: path.name.split("-")[-2])
        return runs[-1].name.rsplit("-", 1)[-1] if runs else None
