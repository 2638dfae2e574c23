"""Data sets of other formats: the same figures as from YOLO's labels, in a cache, with nothing written elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from other_formats import coco, write_coco, write_voc
from validation_fakes import NAMES, FakeRunner

from yoloquant.data.calibration import CalibrationOptions, calibration_set
from yoloquant.data.convert import as_yolo, is_foreign
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import DataError
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.types import ModelInfo, Task

INFO = ModelInfo(Task.DETECT, NAMES, (64, 64))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YOLOQUANT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _files(folder: Path) -> set[str]:
    return {str(p) for p in folder.rglob("*")}


def _figures(data: ValidationSet) -> dict[str, float]:
    rng = np.random.default_rng(3)  # detections near and far from labels, so that mAP is neither 0 nor 1
    rows = []
    for image in data.images:
        centre, side = image.boxes[:, :2] * 64, image.boxes[:, 2:] * 64
        near = np.concatenate([centre - side / 2, centre + side / 2], axis=1) * [1, 0.75, 1, 0.75] + [0, 8, 0, 8]
        near += rng.normal(0, 1.5, near.shape)
        score = rng.uniform(0.3, 0.9, (len(near), 1))
        rows.append(np.concatenate([near, score, image.classes[:, None]], axis=1))
    evaluation = evaluate({"fp32": FakeRunner(rows)}, data, EvaluateOptions(baseline="fp32", warmup=0))
    found = Comparer(evaluation, BootstrapOptions(replicates=2)).accuracy("fp32")
    assert found is not None
    return dict(found.metrics)


@pytest.mark.parametrize("write", [write_coco, write_voc])
def test_the_same_set_scores_the_same(dataset: Path, tmp_path: Path, write: object) -> None:
    other = write(dataset, tmp_path / "other")  # type: ignore[operator]
    before = _files(other)
    theirs, ours = ValidationSet.open(other, INFO), ValidationSet.open(dataset, INFO)
    assert is_foreign(other) and not is_foreign(dataset)
    assert theirs.source == str(other) and theirs.names == ours.names
    for a, b in zip(theirs.images, ours.images, strict=True):
        assert a.path.name.endswith(b.path.name) and a.sha256 == b.sha256
        np.testing.assert_array_equal(a.classes, b.classes)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-7)
    mine = _figures(ours)
    assert _figures(theirs) == mine and 0 < mine["map50_95"] < 1
    assert _files(other) == before


def test_a_copy_is_made_once_and_anew_after_a_change(dataset: Path, tmp_path: Path) -> None:
    other = write_coco(dataset, tmp_path / "other")
    first = Path(as_yolo(other, task=Task.DETECT, names=NAMES))
    marker = first.parent / "marker"
    marker.touch()
    assert as_yolo(other, task=Task.DETECT, names=NAMES) == str(first) and marker.exists()
    file = other / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"].pop()
    file.write_text(json.dumps(content))
    assert as_yolo(other, task=Task.DETECT, names=NAMES) != str(first)


def test_moved_images_are_found_anew(dataset: Path, tmp_path: Path) -> None:
    file = tmp_path / "own" / "all.json"
    file.parent.mkdir()
    file.write_text(json.dumps(coco(dataset, "val", (0, 1, 2))))
    with pytest.raises(DataError, match=r"6 of 6 images are missing, the first is '000.png'.*all.json@<folder>"):
        as_yolo(file)
    named = f"{file}@{dataset.parent / 'images' / 'val'}"
    assert len(ValidationSet.open(named, INFO)) == 6
    shutil.move(dataset.parent / "images" / "val", tmp_path / "moved")
    with pytest.raises(DataError, match="6 of 6 images are missing"):
        ValidationSet.open(named, INFO)


def test_calibration_keeps_the_splits_apart(dataset: Path, tmp_path: Path) -> None:
    other = write_coco(dataset, tmp_path / "other")
    with pytest.raises(Exception, match="6 calibration images; at least 8"):
        calibration_set(other)
    for split in ("train", "val"):
        shutil.copy(dataset.parent / "images" / split / "000.png", tmp_path / f"{split}.png")
    lone = tmp_path / "lone.json"
    lone.write_text(json.dumps(coco(dataset, "train", (0, 1, 2))))
    with pytest.raises(DataError, match=r"6 of 6 images in split 'train'.*also in the split that is scored"):
        calibration_set(f"{lone}@{dataset.parent / 'images' / 'train'}", CalibrationOptions(images=8))


def test_classes_are_the_models_by_name(dataset: Path, tmp_path: Path) -> None:
    file = tmp_path / "val.json"
    content = coco(dataset, "val", (5, 6, 7))
    content["categories"] = [{"id": 0, "name": "animals"}, *reversed(content["categories"])]  # as Roboflow writes
    file.write_text(json.dumps(content))
    named = f"{file}@{dataset.parent / 'images' / 'val'}"
    info = ModelInfo(Task.DETECT, ("Bird", "cat", "dog", "fish"), (64, 64))
    found = ValidationSet.open(named, info).for_classes(info.names)
    ours = ValidationSet.open(dataset, INFO)
    for a, b in zip(found.images, ours.images, strict=True):
        assert [info.names[i].lower() for i in a.classes] == [NAMES[i] for i in b.classes]
    with pytest.raises(DataError, match="classes"):
        ValidationSet.open(named, ModelInfo(Task.DETECT, ("cat", "dog"), (64, 64))).for_classes(("cat", "dog"))


def test_ultralytics_reads_the_copy(dataset: Path, tmp_path: Path) -> None:
    from ultralytics.data.utils import check_det_dataset

    found = check_det_dataset(as_yolo(write_coco(dataset, tmp_path / "other"), names=NAMES), autodownload=False)
    assert found["nc"] == 3 and Path(found["train"]).is_dir()
