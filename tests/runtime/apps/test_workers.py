"""How many workers there are, and what each of them gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from live_fakes import GreyBackend, ListSource, grey_detector

from yoloquant.runtime.apps import running as running_module
from yoloquant.runtime.apps import workers as module
from yoloquant.runtime.apps.pipeline import Pipeline
from yoloquant.runtime.apps.pipeline_workers import WorkerPipeline
from yoloquant.runtime.apps.running import RunnableModel, Running
from yoloquant.runtime.apps.workers import open_workers, shares
from yoloquant.runtime.backends import BackendOptions, backend_class
from yoloquant.runtime.backends.litert import COMPILED_OPERATOR
from yoloquant.runtime.core.model_info import ModelInfo, Task
from yoloquant.runtime.errors import TargetError, UsageError

INFO = ModelInfo(Task.DETECT, ("a",), (64, 64))
ONNX = RunnableModel("onnxruntime", Path("m.onnx"), INFO)


@pytest.mark.parametrize(
    ("threads", "expected"),
    [(1, [1]), (2, [1, 1]), (3, [1, 1, 1]), (4, [1] * 4), (6, [2, 2, 1, 1]), (16, [4] * 4)],
)
def test_a_video_gets_a_worker_for_each_thread_up_to_some(threads: int, expected: list[int]) -> None:
    found = shares(None, ONNX, Running(threads), "film.mp4")
    assert found == expected and sum(count or 0 for count in found) == threads


@pytest.mark.parametrize("source", ["0", "/dev/video1", "rtsp://host/x", "v4l2src ! appsink", "one.jpg", "ONE.PNG"])
def test_what_must_not_wait_gets_one_with_all_threads(source: str) -> None:
    assert shares(None, ONNX, Running(4), source) == [4]
    assert shares(None, ONNX, Running(), source) == [None]
    assert shares(2, ONNX, Running(4), source) == [2, 2], "unless it is asked for"


def test_the_cores_are_shared_where_no_threads_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "cpu_threads", lambda: 3)
    assert shares(None, ONNX, Running(), str(tmp_path)) == [1, 1, 1]
    assert shares(2, ONNX, Running(), str(tmp_path)) == [2, 1]
    assert shares(5, ONNX, Running(), str(tmp_path)) == [1] * 5
    assert shares(1, ONNX, Running(), str(tmp_path)) == [None]


def test_accelerators_run_one_inference_at_a_time(tmp_path: Path) -> None:
    compiled, plain = tmp_path / "tpu.tflite", tmp_path / "cpu.tflite"
    compiled.write_bytes(b"TFL3" + COMPILED_OPERATOR)
    plain.write_bytes(b"TFL3")
    alone = [
        (RunnableModel("litert", compiled, INFO), Running(4)),
        (RunnableModel("litert", plain, INFO), Running(4, device="usb")),
        (RunnableModel("tensorrt", tmp_path / "m.engine", INFO), Running(4)),
        (RunnableModel("openvino", tmp_path, INFO), Running(4, device="GPU")),
        (RunnableModel("openvino", tmp_path, INFO), Running(4, device="AUTO")),
        (RunnableModel("onnxruntime", tmp_path, INFO), Running(4, device="cuda")),
    ]
    for network, running in alone:
        assert shares(None, network, running, "film.mp4") == [4]
        assert shares(1, network, running, "film.mp4") == [4]
        with pytest.raises(UsageError, match="workers=1"):
            shares(2, network, running, "film.mp4")
    for network, device in (
        (RunnableModel("litert", plain, INFO), "CPU"),
        (RunnableModel("openvino", tmp_path, INFO), "cpu"),
    ):
        assert shares(None, network, Running(4, device=device), "film.mp4") == [1] * 4


def test_every_backend_says_where_it_runs() -> None:
    assert not backend_class("tensorrt").on_cpu(Path("m.engine"), "")
    assert backend_class("openvino").on_cpu(Path("m"), "")
    with pytest.raises(UsageError, match="no backend"):
        backend_class("caffe")


def test_each_worker_has_its_own_network_and_all_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[GreyBackend, int | None]] = []

    def stand_in(name: str, path: Path, info: ModelInfo, options: BackendOptions) -> GreyBackend:
        if len(opened) == 3:
            raise TargetError("out of memory")
        opened.append((GreyBackend(), options.threads))
        return opened[-1][0]

    monkeypatch.setattr(running_module, "open_backend", stand_in)
    with open_workers(ONNX, Running(conf=0.5), [2, 1]) as detectors:
        assert [threads for _, threads in opened] == [2, 1] and {d.selection.conf for d in detectors} == {0.5}
        assert [d.backend for d in detectors] == [backend for backend, _ in opened]
        assert not any(backend.closed for backend, _ in opened)
    assert all(backend.closed for backend, _ in opened)
    with pytest.raises(TargetError, match="out of memory"), open_workers(ONNX, Running(), [1, 1]):
        pass
    assert len(opened) == 3 and opened[2][0].closed


def test_one_detector_overlaps_its_steps_and_several_work_side_by_side() -> None:
    for count, kind in ((1, Pipeline), (2, WorkerPipeline)):
        found = module.pipeline_of(ListSource([]), [grey_detector() for _ in range(count)], lambda r: None)
        assert type(found) is kind
