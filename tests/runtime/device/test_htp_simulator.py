"""The NPU's simulator in its own process, against stand-ins of Qualcomm's packages: what crashes or hangs is said."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_qnn import fake_packages, network

from yoloquant.runtime.apps.bench_worker import serve
from yoloquant.runtime.backends import BackendOptions, qnn
from yoloquant.runtime.backends.qnn import QnnBackend, compiled_path
from yoloquant.runtime.core.detections import Selection
from yoloquant.runtime.core.detector import Detector
from yoloquant.runtime.core.model_info import ModelInfo, Task
from yoloquant.runtime.device.htp_simulator import HtpSimulator
from yoloquant.runtime.errors import ArtifactError, TargetError, UsageError

IMAGE = np.arange(192, dtype=np.float32).reshape(1, 3, 8, 8)
INFO = ModelInfo(Task.DETECT, ("a",), (8, 8), strides=(8,))


@pytest.fixture(autouse=True)
def _stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_packages(tmp_path, monkeypatch)
    monkeypatch.setattr(qnn, "is_simulated", lambda: True)
    monkeypatch.setattr(qnn, "why_not_here", lambda: "")


def test_it_computes_there(tmp_path: Path) -> None:
    simulator = HtpSimulator(network(tmp_path, "run"), 57)
    try:
        assert (simulator.version, simulator.shape) == ("2.0", (1, 3, 8, 8))
        for factor in (1, 3):
            doubled, soc, fallback = simulator.run(IMAGE * factor)
            np.testing.assert_array_equal(doubled, IMAGE * factor * 2)
            assert soc.tolist() == [[57, 57]] and fallback.tolist() == [1], "the chip, and nothing on the CPU"
    finally:
        simulator.close()


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("crash", r"simulator crashed \(status -6\): "),
        ("fail", "the NPU failed: out of memory"),
        ("hang", "no answer within 1 s and was ended; use a smaller imgsz"),
    ],
)
def test_what_goes_wrong_is_a_sentence(tmp_path: Path, does: str, said: str) -> None:
    simulator = HtpSimulator(network(tmp_path, does), 57, timeout_s=1 if does == "hang" else 60)
    try:
        with pytest.raises(TargetError, match=said):
            simulator.run(IMAGE)
        with pytest.raises(TargetError):  # once it has ended, it stays so
            simulator.run(IMAGE)
    finally:
        simulator.close()


def test_what_the_compiler_refuses_is_said(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"compiler refuses 'net.onnx': 1002: no such operation"):
        HtpSimulator(network(tmp_path, "refuse"), 57)


def test_a_missing_package_is_named_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("onnxruntime_qnn") is not None:
        pytest.skip("it is installed here")
    (tmp_path / "onnxruntime_qnn.py").unlink()
    with pytest.raises(TargetError, match=r"'onnxruntime_qnn', which is not installed; .*pip install onnxruntime-qnn"):
        HtpSimulator(network(tmp_path, "run"), 57)


def test_the_backend_takes_the_chip_as_its_device(tmp_path: Path) -> None:
    backend = QnnBackend(network(tmp_path, "run"), INFO, BackendOptions(device="8elite"))
    try:
        assert backend(IMAGE)[1].tolist() == [[69, 69]] and backend.version == "2.0"
    finally:
        backend.close()
    with pytest.raises(UsageError, match="no Snapdragon 'gpu'"):
        QnnBackend(network(tmp_path, "run"), INFO, BackendOptions(device="gpu"))


def test_the_backend_refuses_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = ModelInfo(Task.DETECT, ("a",), (16, 8), strides=(8,))
    with pytest.raises(ArtifactError, match=r"takes \(1, 3, 8, 8\), its description says \(1, 3, 16, 8\)"):
        QnnBackend(network(tmp_path, "run"), other, BackendOptions())
    with pytest.raises(ArtifactError, match="does not exist"):
        QnnBackend(tmp_path / "nothing.onnx", INFO, BackendOptions())
    monkeypatch.setattr(qnn, "why_not_here", lambda: "it needs another machine")
    with pytest.raises(TargetError, match="it needs another machine"):
        QnnBackend(network(tmp_path, "run"), INFO, BackendOptions())


def test_only_the_chip_takes_the_compiled_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = network(tmp_path, "run")
    compiled_path(path).touch()
    assert QnnBackend.form(path, "") == path
    monkeypatch.setattr(qnn, "is_simulated", lambda: False)
    assert QnnBackend.form(path, "") == compiled_path(path) == tmp_path / "net_qnn.onnx"
    compiled_path(path).unlink()
    assert QnnBackend.form(path, "") == path
    with pytest.raises(UsageError, match="device='8gen3' is not one of qnn's; choose npu"):
        QnnBackend(path, INFO, BackendOptions(device="8gen3"))


def test_the_simulator_is_not_timed(tmp_path: Path) -> None:
    asked: list[int] = [1, 0]
    told: list[tuple[bool, str]] = []
    connection: Any = SimpleNamespace(recv=lambda: asked.pop(0), send=told.append)
    backend = QnnBackend(network(tmp_path, "run"), INFO, BackendOptions())
    serve(connection, lambda: Detector(backend, Selection()), [np.zeros((8, 8, 3), np.uint8)], ())
    ((good, answer),) = told
    assert not good and "simulator runs here, whose time says nothing of the NPU's" in answer and asked == [1, 0]
