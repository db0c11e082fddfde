from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from robustree.training import Progress, train
from robustree.training.tensorboard import TensorBoard


def _curve(directory: Path, name: str) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory))
    events.Reload()
    return {event.step: event.value for event in events.Scalars(name)}


def test_the_curves_hold_what_the_loop_reports(worker: ModuleType, tmp_path: Path) -> None:
    reports: list[Progress] = []
    with TensorBoard(tmp_path / "curves") as board:

        def both(progress: Progress) -> None:
            reports.append(progress)
            board(progress)

        train(worker.tree_model(), worker.RECIPE, worker.Pictures(), directory=tmp_path, report=both)
    for name in ("loss", "lr", "gradient_norm", "alignment"):
        expected = {progress.step: pytest.approx(progress.logs[name], rel=1e-6) for progress in reports}
        assert _curve(tmp_path / "curves", name) == expected


def test_a_resumed_run_replaces_what_was_written_beyond_its_state(tmp_path: Path) -> None:
    for first, steps, value in ((1, 5, 1.0), (4, 6, 2.0)):  # killed after step 5, resumed from the state of step 3
        with TensorBoard(tmp_path) as board:
            for step in range(first, steps + 1):
                board(Progress(step=step, steps=6, images=1, logs={"loss": value}))
    assert _curve(tmp_path, "loss") == {1: 1.0, 2: 1.0, 3: 1.0, 4: 2.0, 5: 2.0, 6: 2.0}


def test_a_board_that_saw_nothing_writes_nothing(tmp_path: Path) -> None:
    with TensorBoard(tmp_path / "curves"):
        pass
    assert not (tmp_path / "curves").exists()


def test_without_the_package_the_line_to_install_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError) as caught:
        TensorBoard(tmp_path)
    assert str(caught.value) == (
        "TensorBoard curves need the tensorboard package, which is not installed: "
        "run pip install 'robustree[tensorboard]'."
    )
