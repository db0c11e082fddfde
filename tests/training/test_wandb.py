"""Curves for Weights & Biases, offline for real: a stand-in for its server counts what reaches it, which is nothing."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from robustree.training import ChangedCourseWarning, Progress, train
from robustree.training.wandb import WandB

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # from wandb's imports


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was asked of a server that wandb takes for its own and for the proxy of all others."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            requests.append(self.rfile.readline().decode(errors="replace"))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    for name in ("WANDB_BASE_URL", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, address)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    yield requests
    server.shutdown()
    server.server_close()


def _parts(directory: Path) -> list[Path]:
    return sorted(directory.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)


def _read(path: Path) -> tuple[dict[int, dict[str, float]], dict[str, object]]:
    """The steps and the configuration in a run's file, once wandb's own process has written its end."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    for _ in range(200):
        store, records = DataStore(), []
        store.open_for_scan(str(path))
        while (data := store.scan_data()) is not None:
            records.append(wandb_internal_pb2.Record())
            records[-1].ParseFromString(data)
        store.close()
        if any(record.HasField("exit") for record in records):
            break
        time.sleep(0.05)
    config = {item.key: json.loads(item.value_json) for record in records for item in record.run.config.update}
    steps = {}
    for record in records:
        if record.HasField("history"):
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            steps[record.history.step.num] = {key: value for key, value in items.items() if not key.startswith("_")}
    return steps, config


def test_the_record_holds_what_the_loop_reports_and_nothing_is_sent(
    worker: ModuleType, tmp_path: Path, asked: list[str]
) -> None:
    reports: dict[int, dict[str, float]] = {}
    with WandB(tmp_path, {"steps": 4, "method": {"kind": "TeCoA"}}) as board:

        def both(progress: Progress) -> None:
            reports[progress.step] = dict(progress.logs)
            board(progress)

        train(worker.tree_model(), worker.RECIPE, worker.Pictures(), directory=tmp_path, report=both)
    (part,) = _parts(tmp_path)
    steps, config = _read(part)
    assert len(reports) > 1
    assert steps == reports
    assert config["method"] == {"kind": "TeCoA"}
    assert asked == []


def test_a_resumed_run_goes_on_under_its_id_and_a_new_one_has_its_own(tmp_path: Path, asked: list[str]) -> None:
    for first, last in ((1, 2), (3, 4), (1, 1)):
        with WandB(tmp_path, {}) as board:
            for step in range(first, last + 1):
                board(Progress(step=step, steps=4, images=1, logs={"loss": 1 / step}))
    parts = _parts(tmp_path)
    ids = [part.stem for part in parts]
    assert len(parts) == 3 and ids[0] == ids[1] != ids[2]
    assert _read(parts[0])[0] | _read(parts[1])[0] == {step: {"loss": 1 / step} for step in range(1, 5)}
    assert asked == []


def test_a_record_that_saw_nothing_writes_nothing(tmp_path: Path) -> None:
    with WandB(tmp_path / "run", {}):
        pass
    assert not (tmp_path / "run").exists()


def test_where_wandb_fails_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("the service\ndid not start")

    board = WandB(tmp_path, {})
    monkeypatch.setattr(board, "_wandb", SimpleNamespace(init=fail, Settings=lambda **_: None))
    with pytest.warns(ChangedCourseWarning, match=r"wandb failed \(the service did not start\): the run goes on"):
        board(Progress(step=1, steps=2, images=1, logs={"loss": 1.0}))
    board(Progress(step=2, steps=2, images=1, logs={"loss": 1.0}))  # says nothing more
    board.close()


def test_without_the_package_the_line_to_install_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError) as caught:
        WandB(tmp_path, {})
    assert str(caught.value) == (
        "curves for Weights & Biases need the wandb package, which is not installed: "
        "run pip install 'robustree[wandb]'."
    )
