"""Backends: what they refuse and how they say it, and that runner and detector give the same."""

from __future__ import annotations

import builtins
import importlib.util
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from core_models import sample_images, tiny_artifact
from signalled import free_networks, signalled

from yoloquant import targets
from yoloquant.runtime.backends import (
    BackendOptions,
    backend_class,
    backend_names,
    litert,
    onnxruntime,
    open_backend,
    openvino,
)
from yoloquant.runtime.core.detections import Selection
from yoloquant.runtime.core.detector import Detector
from yoloquant.runtime.core.letterbox import letterbox
from yoloquant.runtime.core.model_info import HeadLayout
from yoloquant.runtime.device.processors import has_vnni
from yoloquant.runtime.errors import ArtifactError, MissingRuntimeError, TargetError, UsageError
from yoloquant.runtime.tasks import spec_of
from yoloquant.types import ExportedModel, Task

BACKEND = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "litert", "edgetpu": "litert"}
"""Backend that runs each target's artifacts."""
LIBRARY = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}


@pytest.fixture(scope="module", params=list(BACKEND))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    """The tiny model for one target."""
    target = targets.get(request.param)
    if target.missing():
        pytest.skip(f"target '{target.name}' needs {', '.join(target.missing())}, not installed here")
    return target.export(tiny_artifact(), tmp_path_factory.mktemp(target.name), "tiny")


def opened(exported: ExportedModel, **options: Any) -> Detector:
    raw = exported.layout is HeadLayout.RAW
    chosen = BackendOptions(threads=1, raw=raw, **options)
    return Detector(open_backend(BACKEND[exported.target], exported.path, exported.info, chosen), Selection())


def test_detector_gives_what_validation_gives(exported: ExportedModel) -> None:
    runner, detector = targets.get(exported.target).load(exported, threads=1), opened(exported)
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(4):
        image = np.kron(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8), np.ones((7, 7, 1), np.uint8))
        plain, where = letterbox(image, exported.info.imgsz)
        for selection in (Selection(), Selection(conf=0.3)):
            wanted = spec_of(Task.DETECT).select(runner(plain), runner.layout, exported.info, selection)
            tensor, again = detector.preprocess(image)
            found = detector.select(detector.infer(tensor), selection)
            assert where == again
            np.testing.assert_array_equal(found.confidence, wanted.confidence)
            np.testing.assert_array_equal(found.class_id, wanted.class_id)
            np.testing.assert_allclose(found.xyxy, wanted.xyxy, atol=1e-4)
            counts.append(len(found))
    assert max(counts) > 10
    detector.close()
    runner.close()


@pytest.mark.parametrize(("vnni", "asked"), [(True, False), (False, True), (None, True)])
def test_onnx_runtime_keeps_its_fast_kernels_where_they_add_exactly(
    monkeypatch: pytest.MonkeyPatch, vnni: bool | None, asked: bool
) -> None:
    library = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "has_vnni", lambda: vnni)
    settings = onnxruntime.session_settings(library, BackendOptions(threads=1))
    key = "session.x64quantprecision"
    if asked:
        assert settings.get_session_config_entry(key) == "1"
    else:
        with pytest.raises(RuntimeError):
            settings.get_session_config_entry(key)


def test_a_file_whose_layers_share_a_zero_point_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """ONNX Runtime 1.31 refuses it with exact sums: it replaces the shared zero point twice."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    exported = targets.get("onnxruntime").export(tiny_artifact(), tmp_path, "tiny")
    wanted = targets.get("onnxruntime").load(exported, threads=1)(sample_images(1)[0])
    model = onnx.load(exported.path)
    points = {
        t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8
    }
    zeros: dict[tuple[int, ...], str] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in points and not points[node.input[2]].any():
            node.input[2] = zeros.setdefault(points[node.input[2]].shape, node.input[2])
    assert len(zeros) < sum(n.op_type == "DequantizeLinear" and n.input[0] in points for n in model.graph.node)
    onnx.save(model, exported.path)
    monkeypatch.setattr(onnxruntime, "has_vnni", lambda: False)
    found = targets.get("onnxruntime").open(exported, BackendOptions(threads=1))
    for ours, theirs in zip(found(sample_images(1)[0]), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.02 * np.abs(theirs).max())
    assert "without exact sums only" in caplog.text
    found.close()


@pytest.mark.skipif(not has_vnni(), reason="this processor has no VNNI, so ONNX Runtime's fast kernels clamp")
def test_both_kernels_of_onnx_runtime_add_alike_with_vnni(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    target = targets.get("onnxruntime")
    exported = target.export(tiny_artifact(), tmp_path, "tiny")
    fast = target.load(exported, threads=1)
    monkeypatch.setattr(onnxruntime, "has_vnni", lambda: False)
    slow = target.load(exported, threads=1)
    for image in sample_images(3):
        for ours, theirs in zip(fast(image), slow(image), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    fast.close()
    slow.close()


def test_several_side_by_side_find_what_one_finds(exported: ExportedModel) -> None:
    assert backend_class(BACKEND[exported.target]).on_cpu(exported.path, "")
    rng = np.random.default_rng(1)
    pictures = [
        np.kron(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8), np.ones((7, 7, 1), np.uint8)) for _ in range(12)
    ]
    alone, two = opened(exported), [opened(exported), opened(exported)]
    wanted = [alone(picture) for picture in pictures]
    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(lambda i: [two[i](p) for p in pictures[i::2]], range(2))
    for index, half in enumerate(halves):
        for found, expected in zip(half, wanted[index::2], strict=True):
            for part in ("xyxy", "confidence", "class_id"):
                np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))
    assert sum(map(len, wanted)) > 10
    for detector in (alone, *two):
        detector.close()


def test_ctrl_c_is_no_crash_once_networks_were_freed(exported: ExportedModel) -> None:
    """In whatever order: a runtime may lend threads a stack for signals, and take it away again."""
    options = BackendOptions(threads=1, raw=exported.layout is HeadLayout.RAW)
    backend = BACKEND[exported.target]
    assert signalled(signal.SIGINT, free_networks, backend, exported.path, exported.info, options) == "interrupted"


def test_openvino_pins_no_threads(exported: ExportedModel) -> None:
    """Two networks of a process would be pinned to one core."""
    if exported.target == "openvino":
        assert opened(exported).backend.compiled.get_property(openvino.PINNING) is False  # type: ignore[attr-defined]


def test_describes_its_input(exported: ExportedModel) -> None:
    backend = opened(exported).backend
    integer = exported.target == "edgetpu"
    assert backend.channels_last == integer and np.prod(backend.input_shape) == 3 * np.prod(exported.info.imgsz)
    assert backend.input_dtype == (np.int8 if integer else np.float32)
    assert (backend.input_quantization is not None) == integer
    assert backend.version[0].isdigit() and backend.name == BACKEND[exported.target]


def test_a_copied_output_stays(exported: ExportedModel) -> None:
    """A backend that says so reuses its outputs; the runner's are its caller's own."""
    runner = targets.get(exported.target).load(exported, threads=1)
    first = runner.infer(np.zeros((1, 3, *exported.info.imgsz), np.float32))
    kept = [o.copy() for o in first]
    runner.infer(np.ones((1, 3, *exported.info.imgsz), np.float32))
    for before, now in zip(kept, first, strict=True):
        np.testing.assert_array_equal(before, now)


def test_an_unknown_device_is_refused(exported: ExportedModel) -> None:
    with pytest.raises((UsageError, TargetError), match="choose"):
        opened(exported, device="abacus")


def test_another_input_size_is_refused(exported: ExportedModel) -> None:
    from dataclasses import replace

    info = replace(exported.info, imgsz=(96, 96))
    with pytest.raises(ArtifactError, match="96"):
        open_backend(BACKEND[exported.target], exported.path, info, BackendOptions(threads=1))


def test_names_are_those_of_modules() -> None:
    assert set(backend_names()) >= {*BACKEND.values(), "tensorrt"}
    for name in backend_names():
        assert backend_class(name).name == name
    with pytest.raises(UsageError, match="no backend 'abacus'; there are executorch, litert, onnxruntime"):
        open_backend("abacus", Path("x"), tiny_artifact().info)


@pytest.mark.parametrize("name", list(LIBRARY))
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    pytest.importorskip(LIBRARY[name])
    with pytest.raises(ArtifactError, match=r"model\.bin"):
        open_backend(name, tmp_path / "model.bin", tiny_artifact().info)


@pytest.mark.parametrize("name", list(LIBRARY))
def test_a_broken_file_is_refused(name: str, tmp_path: Path) -> None:
    pytest.importorskip(LIBRARY[name])
    path = tmp_path / "model.xml"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(TargetError, match="cannot load"):
        open_backend(name, path, tiny_artifact().info)


@pytest.mark.parametrize("name", list(LIBRARY))
def test_a_missing_library_is_named_with_the_fix(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, imported = importlib.util.find_spec, builtins.__import__

    def absent(module: str, *arguments: Any, **keywords: Any) -> Any:
        if module in {"onnxruntime", "openvino"}:
            raise ImportError(module)
        return imported(module, *arguments, **keywords)

    for library in LIBRARY.values():
        monkeypatch.delitem(sys.modules, library, raising=False)
    monkeypatch.setattr(builtins, "__import__", absent)
    monkeypatch.setattr(importlib.util, "find_spec", lambda m, *a: None if m in litert.LIBRARIES else found(m, *a))
    with pytest.raises(MissingRuntimeError, match="pip install") as caught:
        open_backend(name, tmp_path, tiny_artifact().info)
    assert (caught.value.backend, caught.value.module) == (name, LIBRARY[name])


def test_tflite_runtime_serves_where_litert_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older package has the same interpreter under another name."""
    real = pytest.importorskip("ai_edge_litert.interpreter")
    target = targets.get("litert")
    if target.missing():
        pytest.skip("needs litert-torch to export")
    exported = target.export(tiny_artifact(), tmp_path, "tiny")
    find = importlib.util.find_spec
    older = SimpleNamespace(Interpreter=real.Interpreter, load_delegate=real.load_delegate)
    monkeypatch.setitem(sys.modules, "tflite_runtime", SimpleNamespace(__version__="2.14.0"))
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", older)
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda m, *a: {"ai_edge_litert": None, "tflite_runtime": object()}[m] if m in litert.LIBRARIES else find(m, *a),
    )
    detector = opened(exported)
    assert detector.backend.version == "2.14.0"
    assert len(detector(np.zeros((64, 64, 3), np.uint8))) > 0


def devices(*names: str, capabilities: Sequence[str] = ("FP32", "FP16")) -> Any:
    """OpenVINO's core on a machine with some devices."""
    return SimpleNamespace(available_devices=list(names), get_property=lambda device, key: list(capabilities))


@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        ("CPU", {}, {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}),
        ("CPU", {"threads": 3, "precision": ""}, {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 3}),
        ("GPU", {"hint": "throughput"}, {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}),
        (
            "GPU.1",
            {"threads": 3, "precision": "f16"},
            {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f16"},
        ),
        (
            "AUTO:GPU,CPU",
            {},
            {
                "PERFORMANCE_HINT": "LATENCY",
                "ENABLE_STARTUP_FALLBACK": False,
                "DEVICE_PROPERTIES": {d: {"INFERENCE_PRECISION_HINT": "f32"} for d in ("CPU", "GPU.0", "GPU.1")},
            },
        ),
        ("AUTO", {"precision": ""}, {"PERFORMANCE_HINT": "LATENCY", "ENABLE_STARTUP_FALLBACK": False}),
        (
            "MULTI:CPU",
            {"precision": "f16"},
            {
                "PERFORMANCE_HINT": "LATENCY",
                "DEVICE_PROPERTIES": {d: {"INFERENCE_PRECISION_HINT": "f16"} for d in ("CPU", "GPU.0", "GPU.1")},
            },
        ),
    ],
)
def test_openvino_is_configured_for_its_device(device: str, options: dict[str, Any], expected: dict[str, Any]) -> None:
    assert openvino._config(devices("CPU", "GPU.0", "GPU.1"), device, BackendOptions(**options)) == expected


def test_openvino_is_told_to_pin_nothing_where_it_could() -> None:
    core = devices("CPU", "GPU", capabilities=("FP32", openvino.PINNING))
    assert openvino._config(core, "CPU", BackendOptions())[openvino.PINNING] is False
    assert openvino.PINNING not in openvino._config(core, "GPU", BackendOptions())


def test_an_npu_chooses_its_own_precision() -> None:
    core = devices("CPU", "NPU", capabilities=("FP16", "INT8"))
    assert openvino._config(core, "NPU", BackendOptions()) == {"PERFORMANCE_HINT": "LATENCY"}


@pytest.mark.parametrize("options", [{"hint": "speed"}, {"precision": "f64"}])
def test_unknown_options_of_openvino_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="choose from"):
        openvino._config(devices("CPU"), "CPU", BackendOptions(**options))


def test_an_absent_openvino_device_is_refused() -> None:
    with pytest.raises(TargetError, match="no device 'NPU' on this machine; it finds CPU"):
        openvino._config(devices("CPU"), "NPU", BackendOptions())


class Delegates:
    """Stands in for the interpreter's module where no Edge TPU is connected, or one is."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked = error, []  # type: ignore[var-annotated]

    def load_delegate(self, library: str, options: dict[str, str]) -> str:
        self.asked.append((library, options))
        if self.error is not None:
            raise self.error
        return "delegate"


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    path = tmp_path / "model_edgetpu.tflite"
    path.write_bytes(b"\0" * 64 + litert.COMPILED_OPERATOR)
    return path


@pytest.mark.parametrize(
    ("device", "options"), [("", {}), ("tpu", {}), ("usb", {"device": "usb"}), ("PCI:1", {"device": "pci:1"})]
)
def test_a_compiled_file_gets_the_edge_tpu(compiled: Path, device: str, options: dict[str, str]) -> None:
    module = Delegates()
    assert litert._delegates(module, compiled, device) == ["delegate"]
    assert [found for _, found in module.asked] == [options]


def test_an_absent_edge_tpu_is_reported(compiled: Path) -> None:
    with pytest.raises(MissingRuntimeError, match="plug it in"):
        litert._delegates(Delegates(ValueError("Failed to load delegate")), compiled, "")


def test_a_delegate_that_crashes_is_a_sentence(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crashing_interpreter.py").write_text(
        "import os, signal\ndef load_delegate(library, options):\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    module = SimpleNamespace(__name__="crashing_interpreter", load_delegate=lambda *a: pytest.fail("loaded here too"))
    with pytest.raises(TargetError, match=r"crashes when it is loaded \(signal 11\)"):
        litert._delegates(module, compiled, "usb")


def test_files_and_devices_must_fit(compiled: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.tflite"
    plain.write_bytes(b"\0" * 64)
    assert litert._delegates(Delegates(), plain, "") is None and litert._delegates(Delegates(), plain, "cpu") is None
    with pytest.raises(ArtifactError, match="not compiled for an Edge TPU"):
        litert._delegates(Delegates(), plain, "usb")
    with pytest.raises(UsageError, match="does not run on the CPU"):
        litert._delegates(Delegates(), compiled, "cpu")
    with pytest.raises(UsageError, match="choose from cpu, tpu"):
        litert._delegates(Delegates(), compiled, "gpu")
