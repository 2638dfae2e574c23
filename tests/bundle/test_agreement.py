"""Bundle, package and plain Ultralytics find the same objects on the photos inside the ultralytics package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from yoloquant import QuantizeOptions, api, targets
from yoloquant.bundle import BundleOptions, device_named, write
from yoloquant.bundle.images import host_pictures
from yoloquant.data.calibration import CalibrationOptions
from yoloquant.quantization.artifact import Artifact
from yoloquant.runtime import load
from yoloquant.runtime.apps.golden import SELECTION, Tolerances, compare_detections
from yoloquant.runtime.core.detections import Detections
from yoloquant.runtime.core.letterbox import letterbox
from yoloquant.runtime.tasks import spec_of
from yoloquant.types import ExportedModel, Task

SHARED = Path(__file__).resolve().parents[3] / "shared"
EXACT = Tolerances(boxes=0, scores=0, score=0.001, iou=0.99, agreement=1)
# measured where Ultralytics lets OpenVINO choose: scores 0.035, IoU 0.896
CLOSE = Tolerances(boxes=0, scores=0, score=0.1, iou=0.8, agreement=0.9)


@pytest.fixture
def exact_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Ultralytics' sessions compute as this package's do: exact sums, and float operations in float32.

    Without VNNI, ONNX Runtime's default kernels clamp sums of pairs of products, and scores move by more than EXACT.
    Where the processor has bfloat16 (AMX), OpenVINO computes float operations in it unless it is told not to.
    """
    import onnxruntime
    import openvino

    opened = onnxruntime.InferenceSession

    def session(path: str, options: Any = None, **rest: Any) -> Any:
        options = options or onnxruntime.SessionOptions()
        options.add_session_config_entry("session.x64quantprecision", "1")
        return opened(path, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    compile_model = openvino.Core.compile_model

    def compiled(self: Any, model: Any, device_name: Any = None, config: Any = None, **rest: Any) -> Any:
        hinted = {**(config or {}), "INFERENCE_PRECISION_HINT": "f32"}
        return compile_model(self, model, device_name, hinted, **rest)

    monkeypatch.setattr(openvino.Core, "compile_model", compiled)


def of_package(exported: ExportedModel, image: np.ndarray) -> Detections:
    runner = targets.get(exported.target).load(exported, threads=1)
    try:
        tensor, where = letterbox(image, exported.info.imgsz)
        found = spec_of(exported.info.task).select(runner(tensor), runner.layout, exported.info, SELECTION)
    finally:
        runner.close()
    return Detections(where.to_original(found.xyxy), found.confidence, found.class_id)


def of_ultralytics(exported: ExportedModel, image: np.ndarray) -> Detections:
    from ultralytics import YOLO

    model: Any = YOLO(str(exported.path), task="detect")
    (result,) = model.predict(image, imgsz=exported.info.imgsz[0], conf=0.1, iou=0.7, max_det=300, verbose=False)
    boxes = result.boxes
    return Detections(boxes.xyxy.cpu().numpy(), boxes.conf.cpu().numpy(), boxes.cls.cpu().numpy().astype(np.int64))


def share(first: Detections, second: Detections, tolerances: Tolerances) -> float:
    found = compare_detections(first, second, tolerances, spec_of(Task.DETECT))
    return found.same / found.total if found.total else 1.0


def check(artifact: Artifact, exported: ExportedModel, device: str, folder: Path) -> int:
    """Compare on every photo, selecting lower than what counts; how many objects there were."""
    made = write(artifact, exported, device=device, folder=folder, options=BundleOptions(golden_images=1, threads=1))
    limits = CLOSE if exported.target == "openvino" else EXACT
    objects = 0
    with load(made.path, threads=1, conf=SELECTION.conf) as detector:
        for path in host_pictures():
            image = cv2.imread(str(path))
            ours = detector(image)
            objects += int((ours.confidence >= EXACT.conf).sum())
            assert share(ours, of_package(exported, image), EXACT) == 1.0, f"{path.name}: package"
            if exported.drop_in:
                assert share(ours, of_ultralytics(exported, image), limits) >= limits.agreement, f"{path.name}: YOLO"
    return objects


@pytest.mark.slow
@pytest.mark.usefixtures("exact_sums")
@pytest.mark.parametrize("device", ["raspberrypi", pytest.param("coral", marks=pytest.mark.nightly), "intel", "onnx"])
def test_the_demonstration_model(
    device: str, demo_artifact: Artifact, exported: Callable[[str], ExportedModel], tmp_path: Path
) -> None:
    assert len(host_pictures()) >= 2
    assert check(demo_artifact, exported(device_named(device).target.name), device, tmp_path / "bundle") > 0


@pytest.mark.slow
@pytest.mark.usefixtures("exact_sums")
def test_yolo11n(tmp_path: Path) -> None:
    weights, data = SHARED / "weights" / "yolo11n.pt", SHARED / "data" / "coco256" / "coco256.yaml"
    if not (weights.is_file() and data.is_file()):
        pytest.skip("needs ../shared/weights/yolo11n.pt and ../shared/data/coco256")
    options = QuantizeOptions(imgsz=320, calibration=CalibrationOptions(images=16))
    schemes = ["onnxruntime", "openvino", "litert"]
    artifact = api.quantize(str(weights), data=data, scheme=schemes, options=options)
    for device in ("onnx", "intel", "raspberrypi"):
        (exported,) = api.export(artifact, targets=device, output=tmp_path / "exports").exports
        assert check(artifact, exported, device, tmp_path / device) >= 6
