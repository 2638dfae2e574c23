"""An export as a function from images to detections."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from live_network import write_network

import yoloquant
from yoloquant.errors import ArtifactError, DataError, UsageError
from yoloquant.inference.run_exports import ArtifactOpener
from yoloquant.runtime.apps.running import Running
from yoloquant.targets.exports import save_exports
from yoloquant.types import ExportedModel


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    folder = tmp_path_factory.mktemp("exports")
    made = write_network(folder / "tiny-onnxruntime.onnx")
    save_exports(folder, [made])
    return made


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "a.png"
    cv2.imwrite(str(path), np.random.RandomState(0).randint(0, 256, (96, 128, 3), dtype=np.uint8))
    return path


def test_paths_arrays_and_several_of_them_say_what_the_detector_says(export: ExportedModel, picture: Path) -> None:
    pixels = cv2.imread(str(picture))
    with ArtifactOpener(str(export.path), Running(threads=1, conf=0.02))() as detector:
        wanted = detector(pixels)
    assert len(wanted) > 0
    for named in (export, export.path, export.path.parent):
        with yoloquant.load(named, threads=1, conf=0.02) as model:
            assert model.info == export.info and "3 classes" in repr(model)
            for found in (model(picture), model(str(picture)), model(pixels), *model([picture, pixels]),
                          *model(np.stack([pixels]))):  # fmt: skip
                np.testing.assert_array_equal(found.xyxy, wanted.xyxy)
                np.testing.assert_array_equal(found.confidence, wanted.confidence)
                np.testing.assert_array_equal(found.class_id, wanted.class_id)
                assert found.class_name == ["abc"[i] for i in wanted.class_id]


def test_a_path_that_opencv_cannot_open_is_read(
    export: ExportedModel, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "Straße 日本.png"
    path.write_bytes(picture.read_bytes())
    monkeypatch.setattr(cv2, "imread", lambda *_: None)  # as on Windows, where it takes one code page alone
    with yoloquant.load(export, threads=1, conf=0.02) as model:
        np.testing.assert_array_equal(model(path).xyxy, model(picture).xyxy)


def test_what_is_no_image_is_named(export: ExportedModel, tmp_path: Path) -> None:
    with yoloquant.load(export) as model:
        for wrong in (tmp_path / "none.png", np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
            with pytest.raises(DataError):
                model(wrong)
        with pytest.raises(UsageError, match="got int"):
            model(5)
    with pytest.raises(UsageError, match="unknown argument 'confidence' of 'load'"):
        yoloquant.load(export, confidence=0.5)
    with pytest.raises(ArtifactError, match="does not exist"):
        yoloquant.load(tmp_path / "none")


def test_supervision_gets_the_same_fields(
    export: ExportedModel, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with yoloquant.load(export, conf=0.02) as model:
        found = model(picture)
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UsageError, match="pip install supervision"):
        found.to_supervision()
    stand_in = ModuleType("supervision")
    stand_in.Detections = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    theirs = found.to_supervision()
    np.testing.assert_array_equal(theirs.xyxy, found.xyxy)
    np.testing.assert_array_equal(theirs.class_id, found.class_id)
    assert theirs.data["class_name"].tolist() == found.class_name
