"""Detection and benchmarks with exported artifacts; what is not particular to exports is tested under tests/runtime."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from live_network import write_network

from yoloquant.errors import ArtifactError, UsageError
from yoloquant.inference import run_exports as live
from yoloquant.runtime.apps.keys import PREDICT
from yoloquant.runtime.apps.predict import PredictOptions
from yoloquant.runtime.apps.running import Running
from yoloquant.runtime.apps.settings import VerbSettings
from yoloquant.runtime.core.detections import Detections
from yoloquant.targets.exports import load_exports, save_exports
from yoloquant.types import ExportedModel, ModelInfo, Task


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export folder with one artifact that runs and one that does not as it is."""
    folder = tmp_path_factory.mktemp("exports")
    exported = write_network(folder / "tiny-onnxruntime.onnx")
    other = folder / "tiny-tensorrt.onnx"
    other.write_bytes(exported.path.read_bytes())
    save_exports(folder, [exported, replace(exported, path=other, target="tensorrt")])
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    draw = np.random.RandomState(0)
    for index in range(3):
        picture = draw.randint(0, 256, (12, 16, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        cv2.imwrite(str(folder / f"{index}.png"), picture)
    return folder


def test_an_artifact_detects_as_its_detector_does(exports: Path, images: Path, tmp_path: Path) -> None:
    running = Running(threads=1, conf=0.02, max_det=20)
    out = tmp_path / "out.jsonl"
    options = PredictOptions(str(images), outputs=(str(out),))
    summary = live.predict(str(exports / "tiny-onnxruntime.onnx"), options, running)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    with live.ArtifactOpener(str(exports), running)() as detector:  # the only one that runs
        for line in lines:
            found = detector(cv2.imread(str(images / line["file"])))
            assert np.allclose(line["xyxy"], found.xyxy, atol=1e-3) and line["class_id"] == found.class_id.tolist()
    assert summary.outcome.frames == len(lines) == 3 and sum(summary.found.values()) > 0
    shared = tmp_path / "shared.jsonl"
    options = replace(options, outputs=(str(shared),), workers=2)
    live.predict(str(exports / "tiny-onnxruntime.onnx"), options, replace(running, threads=2))
    others = [json.loads(line) for line in shared.read_text().splitlines()]
    for line in [*lines, *others]:
        del line["latency_ms"]
    assert others == lines, "two workers find the same, in the same order"


def test_the_verbs_say_their_results(exports: Path, images: Path, tmp_path: Path) -> None:
    said: list[str] = []
    arguments = {"model": str(exports), "source": str(images), "threads": "1"}
    assert live.predict_main({**arguments, "output": str(tmp_path / "o.jsonl"), "conf": "0.02"}, said.append) == 0
    assert "3 frames" in said[-1]
    out = tmp_path / "bench.json"
    arguments |= {"rounds": "2", "runs": "3", "warmup": "1", "images": "2", "output": str(out)}
    assert live.bench_main(arguments, said.append) == 0
    (artifact,) = json.loads(out.read_text())["artifacts"]
    assert artifact["name"] == "tiny-onnxruntime.onnx" and artifact["facts"]["threads"] == 1
    assert artifact["steps_ms"]["inference"]["p50"] > 0 and artifact["memory_mb"] > 1


def test_what_cannot_run_as_it_is_is_refused(exports: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="build the engine"):
        live.ArtifactOpener(str(exports / "tiny-tensorrt.onnx"))()
    with pytest.raises(ArtifactError, match="no artifact that runs"):
        live.openers([str(exports / "tiny-tensorrt.onnx")])
    with pytest.raises(ArtifactError, match="does not exist"):
        live.openers([str(tmp_path / "none")])
    with pytest.raises(UsageError, match="model="):
        live.predict_main({"source": "0"}, print)


def test_an_engine_that_was_built_beside_its_model_runs(exports: Path, tmp_path: Path) -> None:
    model, engine = tmp_path / "tiny-tensorrt.onnx", tmp_path / "tiny-tensorrt.engine"
    model.write_bytes((exports / "tiny-tensorrt.onnx").read_bytes())
    engine.write_bytes(b"made on this device")
    info = ModelInfo(Task.DETECT, ("a", "b", "c"), (64, 64))
    metadata = {"engine": {"path": engine.name, "gpu": "Orin", "tensorrt": "10.3.0"}}
    save_exports(tmp_path, [ExportedModel("tensorrt", model, info, info.layout, metadata=metadata)])
    for named in (engine, model, tmp_path):
        network = live.ArtifactOpener(str(named)).network()
        assert (network.backend, network.path, network.info, network.raw) == ("tensorrt", engine, info, False)
    (opener,) = live.openers([str(tmp_path)]).values()
    assert opener.network().path == engine


def test_every_running_artifact_of_a_folder_is_measured(exports: Path) -> None:
    assert list(live.openers([str(exports)])) == ["tiny-onnxruntime.onnx"]
    found = live.openers([str(exports / "tiny-onnxruntime.onnx"), str(exports)])
    assert len(found) == 2 and {opener.path for opener in found.values()} == {str(exports / "tiny-onnxruntime.onnx")}


def test_matched_confidences_are_the_thresholds_where_that_is_asked(
    exports: Path, images: Path, tmp_path: Path
) -> None:
    """Both words read what validation noted; a list that does not fit the classes is none."""
    (exported, *_) = load_exports(exports / "tiny-onnxruntime.onnx")
    image = cv2.imread(str(images / "0.png"))
    with live.ArtifactOpener(str(exported.path), Running(threads=1, conf=0.0))() as detector:
        every = detector(image)
    middle = float(np.median(every.confidence[every.class_id == every.class_id[0]]))
    each = [middle if k == every.class_id[0] else 0.0001 for k in range(len(exported.info.names))]
    copy = tmp_path / exported.path.name
    copy.write_bytes(exported.path.read_bytes())

    def found(noted: dict[str, Any], word: str) -> Detections:
        save_exports(tmp_path, [replace(exported, path=copy, metadata=noted)])
        running = Running.parse(VerbSettings({"threads": "1", "conf": word}, PREDICT, "predict"))
        with live.ArtifactOpener(str(copy), running)() as opened:
            return opened(image)

    noted = {"matched_conf": middle, "matched_conf_per_class": each}
    assert (found(noted, "matched").confidence > np.float32(middle)).all()
    own = found(noted, "matched_per_class")
    kept = every.take(every.confidence > np.array(each, np.float32)[every.class_id])
    assert np.array_equal(own.confidence, kept.confidence) and np.array_equal(own.class_id, kept.class_id)
    assert 0 < len(own) < len(every) and set(own.class_id.tolist()) == set(every.class_id.tolist())
    for bad in (
        {},
        {**noted, "matched_conf_per_class": each[1:]},
        {**noted, "matched_conf_per_class": [2.0, *each[1:]]},
    ):
        with pytest.raises(UsageError, match="conf=matched_per_class is not known"):
            found(bad, "matched_per_class")
