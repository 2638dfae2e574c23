"""Bundles of every task: they verify themselves, notice another network in each part of its output, and predict."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tiny_models import tiny_export_artifact, tiny_images

from yoloquant import targets
from yoloquant.bundle import BundleOptions, write
from yoloquant.errors import BundleError, TargetError
from yoloquant.runtime.apps.golden import Golden, read_outputs, write_outputs
from yoloquant.runtime.apps.predict import KEYS, PredictOptions, predict
from yoloquant.runtime.apps.settings import VerbSettings
from yoloquant.runtime.apps.verify import VerifyOptions, VerifyResult, open_detector, verify
from yoloquant.runtime.backends import BackendOptions, backend_class
from yoloquant.runtime.core.bundle_manifest import FILE_NAME, read
from yoloquant.runtime.core.folder_check import FileEntry, file_sha256
from yoloquant.types import Task

PARTS = {
    Task.SEGMENT: ("coefficients", "prototypes"),
    Task.POSE: ("keypoints",),
    Task.OBB: ("angles",),
    Task.CLASSIFY: ("scores",),
}
"""What a task predicts besides boxes and scores of boxes."""
WRITTEN = {Task.SEGMENT: "masks", Task.POSE: "keypoints", Task.OBB: "rotated", Task.CLASSIFY: "names"}


@pytest.fixture(scope="module", params=list(PARTS), ids=[task.value for task in PARTS])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a small model with random weights; nothing in it is changed."""
    folder, target = tmp_path_factory.mktemp(request.param.value), targets.get("onnxruntime")
    artifact = tiny_export_artifact("yolo11", request.param.value, (target.scheme,))
    exported = target.export(artifact, folder, "tiny")
    pictures = folder / "pictures"
    pictures.mkdir()
    for index, image in enumerate(tiny_images(2, seed=3)):
        cv2.imwrite(str(pictures / f"{index}.png"), (image[0].transpose(1, 2, 0) * 255).astype(np.uint8)[:48])
    options = BundleOptions(data=pictures, golden_images=2, threads=1)
    return write(artifact, exported, device="onnx", folder=folder / "bundle", options=options).path


@pytest.mark.slow
def test_it_verifies_itself_and_notices_every_part(bundle: Path, tmp_path: Path) -> None:
    outcome = verify(bundle, VerifyOptions())
    assert outcome.result is VerifyResult.PASS, [check.message for check in outcome.checks]
    task = read(bundle).info.task
    differences = next(c for c in outcome.checks if c.name == "golden outputs").values["differences"]
    assert set(PARTS[task]) <= set(differences)
    for part in PARTS[task]:
        other = Path(shutil.copytree(bundle, tmp_path / part))
        for item in Golden.from_dict(read(other).golden).images:
            outputs = list(read_outputs(other / item.outputs))
            index = 1 if part == "prototypes" else 0
            values = outputs[index] if part in {"prototypes", "scores"} else outputs[index][:, 7:]  # 3 classes
            values += values.std() * np.random.default_rng(0).normal(size=values.shape)
            (other / item.outputs).unlink()
            write_outputs(other / item.outputs, outputs)
        manifest = read(other, check=False)
        files = {p: FileEntry(file_sha256(other / p), (other / p).stat().st_size) for p in manifest.files}
        (other / FILE_NAME).write_text(replace(manifest, files=files).signed().text())
        found = next(c for c in verify(other, VerifyOptions()).checks if c.name == "golden outputs")
        assert found.result is VerifyResult.FAIL and found.values["differences"][part] > found.values["limits"][part]


@pytest.mark.slow
def test_a_device_that_returns_nan_is_no_device_that_differs(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = backend_class(read(bundle).backend)
    whole = kind.run

    def broken(self: Any, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        *first, last = whole(self, tensor)  # of a segment model the prototypes
        return *first, np.where(np.arange(last.shape[-1]) == 1, np.float32(np.nan), last)

    monkeypatch.setattr(kind, "run", broken)
    with pytest.raises(TargetError, match="NaN"):
        verify(bundle, VerifyOptions())


@pytest.mark.slow
def test_a_device_that_answers_as_another_model_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = backend_class(read(bundle).backend)
    whole = kind.run

    def narrower(self: Any, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        first, *further = whole(self, tensor)
        return first[:, :-1], *further

    monkeypatch.setattr(kind, "run", narrower)
    with pytest.raises(TargetError, match="shape"):
        verify(bundle, VerifyOptions())


@pytest.mark.slow
def test_a_damaged_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    manifest = read(other)
    content = (other / manifest.model).read_bytes()
    (other / manifest.model).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match=manifest.model):
        verify(other, VerifyOptions())
    (other / manifest.model).write_bytes(content)
    item = Golden.from_dict(manifest.golden).images[0]
    outputs = list(read_outputs(other / item.outputs))
    write_outputs(other / item.outputs, [outputs[0][:, :-1], *outputs[1:]])
    files = {p: FileEntry(file_sha256(other / p), (other / p).stat().st_size) for p in manifest.files}
    (other / FILE_NAME).write_text(replace(manifest, files=files).signed().text())
    with pytest.raises(BundleError, match="have shapes"):
        verify(other, VerifyOptions())


@pytest.mark.slow
def test_it_predicts(bundle: Path, tmp_path: Path) -> None:
    manifest = read(bundle)
    arguments = {"source": str(bundle / "golden"), "output": f"{tmp_path}/a.jsonl,{tmp_path}/drawn"}
    with open_detector(bundle, manifest, BackendOptions(threads=1)) as detector:
        summary = predict(detector, PredictOptions.parse(VerbSettings(arguments, KEYS, "predict")))
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert summary.outcome.frames == len(lines) == 2
    for line in lines:
        assert len(line["confidence"]) == len(line[WRITTEN[manifest.info.task]])
    assert sum(len(line["confidence"]) for line in lines) > 0
    pictures = sorted((tmp_path / "drawn").iterdir())
    assert len(pictures) == 2
    for picture in pictures:
        assert (cv2.imread(str(picture)) != cv2.imread(str(bundle / "golden" / picture.name))).any()
