"""Trackers are told of what Ultralytics' settings say, with their own libraries, and cost no run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from yoloquant.trackers import TrackedRun, track

RUN = {
    "verb": "validate",
    "name": "best.pt",
    "parameters": {"gate": "default", "imgsz": (64, 64)},
    "metrics": {"openvino/map50_95": 0.5, "openvino/fidelity": 0.75},
    "series": {"search/map": [(0, 0.1), (1, 0.2)]},
    "text": "**PASS**",
}


def _enable(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr("yoloquant.bridge.installed.settings", lambda: dict.fromkeys(names, True))


def _run(folder: Path) -> TrackedRun:
    import cv2
    import numpy as np

    folder.mkdir(exist_ok=True)
    (folder / "report.html").write_text("<p>")
    cv2.imwrite(str(folder / "front.png"), np.zeros((8, 8, 3), np.uint8))
    files = (folder / "report.html", folder / "front.png", folder / "missing.json")
    return TrackedRun(folder=folder, files=files, **RUN)  # type: ignore[arg-type]


def test_nothing_is_told_that_nobody_enabled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _enable(monkeypatch)
    assert track(_run(tmp_path)) == () and not list(tmp_path.glob("events*"))


def test_tensorboard_files_hold_the_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _enable(monkeypatch, "tensorboard")
    assert track(_run(tmp_path)) == ("TensorBoard",)
    found = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    found.Reload()
    assert found.Scalars("validate/openvino/map50_95")[0].value == 0.5
    assert [(e.step, round(e.value, 3)) for e in found.Scalars("validate/search/map")] == [(0, 0.1), (1, 0.2)]
    assert found.Tags()["images"] == ["front"]
    assert b"**PASS**" in found.Tensors("validate/text_summary")[0].tensor_proto.string_val[0]


def test_mlflow_has_a_run_with_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/ml.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "test")
    monkeypatch.chdir(tmp_path)
    _enable(monkeypatch, "mlflow")
    assert track(_run(tmp_path / "run")) == ("MLflow",) and mlflow.active_run() is None
    (run,) = mlflow.search_runs(experiment_names=["test"], output_format="list")
    assert run.data.metrics["validate/openvino/fidelity"] == 0.75 and run.info.status == "FINISHED"
    assert run.data.params["validate.gate"] == "default"


@pytest.mark.nightly
def test_an_mlflow_server_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Over its REST interface, as teams run it; files go through the server too."""
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("flask")  # the server's own; the client's packages lack it
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = ["--backend-store-uri", f"sqlite:///{tmp_path}/ml.db", "--artifacts-destination", str(tmp_path / "files")]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *places],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for(port, server)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "test")
        mlflow.set_tracking_uri(None)
        _enable(monkeypatch, "mlflow")
        assert track(_run(tmp_path / "run")) == ("MLflow",)
        (run,) = mlflow.search_runs(experiment_names=["test"], output_format="list")
        assert run.data.metrics["validate/openvino/map50_95"] == 0.5 and run.info.status == "FINISHED"
        assert sorted(p.name for p in (tmp_path / "files").rglob("*") if p.is_file()) == ["front.png", "report.html"]
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)  # its workers are processes of their own
            server.wait(timeout=30)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("the server does not answer")


@pytest.mark.slow
def test_wandb_s_own_client_writes_a_run_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    _enable(monkeypatch, "wandb")
    assert track(_run(tmp_path)) == ("Weights & Biases",)
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    for word in ("validate/openvino/map50_95", "validate/search/map", "report.html", "front"):
        assert word.encode() in content, word


class _Wandb(types.ModuleType):
    """What of W&B's client is called, noted: the client itself starts a process of its own."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
        self.run, self.logged, self.ended = None, [], []
        self.Image = str
        self.summary, self.config = {}, self
        self.files: list[str] = []

    def init(self, **keys: Any) -> Any:
        self.began = keys
        return self

    def update(self, values: Any, allow_val_change: bool = False) -> None:
        self.configured = values

    def log(self, values: Any) -> None:
        self.logged.append(values)

    def Artifact(self, name: str, type: str) -> Any:
        return types.SimpleNamespace(add_file=self.files.append, name=name)

    def log_artifact(self, artifact: Any) -> None:
        self.artifact = artifact.name

    def finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


def test_wandb_gets_figures_files_and_an_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wandb = _Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    _enable(monkeypatch, "wandb")
    assert track(_run(tmp_path)) == ("Weights & Biases",)
    assert wandb.began["name"] == "validate best.pt" and wandb.ended == [0]
    assert wandb.summary["validate/openvino/map50_95"] == 0.5
    assert wandb.logged[1] == {"validate/step": 1, "validate/search/map": 0.2} and "front" in wandb.logged[-1]
    assert [Path(f).name for f in wandb.files] == ["report.html", "front.png"]


def test_a_tracker_that_fails_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wandb = _Wandb()
    monkeypatch.setattr(wandb, "log_artifact", lambda artifact: 1 / 0)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    _enable(monkeypatch, "wandb")
    assert track(_run(tmp_path)) == ()
    assert "Weights & Biases was not told of this run: division by zero" in caplog.text and wandb.ended == [1]
