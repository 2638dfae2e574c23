"""Folders of classes: one without images is named before anything is read, in every split."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from yoloquant.data.calibration import calibration_set
from yoloquant.data.calibration_options import CalibrationOptions
from yoloquant.data.class_folders import is_split_root
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import DataError
from yoloquant.types import ModelInfo, Task

INFO = ModelInfo(Task.CLASSIFY, ("cat", "dog"), (32, 32))
OPTIONS = CalibrationOptions(images=8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(5):
                cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    return tmp_path


def test_splits_are_kept_apart(root: Path) -> None:
    found = calibration_set(root, OPTIONS)
    assert found.split == "train" and len(found.paths) == 8
    assert {p.parent.parent.name for p in found.paths} == {"train"}
    scored = ValidationSet.from_class_folders(root, INFO)
    assert [int(i.classes[0]) for i in scored.images] == [0] * 5 + [1] * 5


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_folder_without_images_is_named(root: Path, split: str) -> None:
    empty = root / split / "dog"
    for image in empty.iterdir():
        image.unlink()
    with pytest.raises(DataError, match=f"class folder {empty} holds no image; add some, or remove the folder"):
        if split == "train":
            calibration_set(root, OPTIONS)
        else:
            ValidationSet.from_class_folders(root, INFO)
    (empty / ".gitkeep").touch()  # kept for its name alone
    assert len(ValidationSet.from_class_folders(root, INFO).images) == (10 if split == "train" else 5)


def test_other_files_make_no_class(root: Path) -> None:
    folder = root / "val" / "dog"
    for image in folder.iterdir():
        image.rename(image.with_suffix(".txt"))
    with pytest.raises(DataError, match=f"class folder {folder} holds no image"):
        ValidationSet.from_class_folders(root, INFO)


def test_without_a_train_split_the_scored_images_do_not_calibrate(root: Path) -> None:
    (root / "train").rename(root / "elsewhere")
    with pytest.raises(DataError, match=r"has no split 'train' \(a folder train\); it has elsewhere, val"):
        calibration_set(root, OPTIONS)
    found = calibration_set(root, CalibrationOptions(images=8, split="val", allow_scored=True))  # where it is meant
    assert len(found.paths) == 8


def test_folders_of_a_detectors_splits_are_no_classes(root: Path) -> None:
    """Annotations, labels of another run and recordings by day lie beside images everywhere."""
    assert is_split_root(root) and not is_split_root(root / "val")
    images = root / "train" / "cat"
    for split in ("train", "val"):
        (root / split / "cat").rename(root / split / "images")
        (root / split / "dog").rename(root / split / "labels")
        (root / split / "annotations").mkdir()
        (root / split / "annotations" / "all.json").write_text("{}")
    assert not images.exists() and not is_split_root(root)
    (root / "val" / "images").rename(root / "val" / "dog")
    assert is_split_root(root), "images in a folder of their own are a class, also of val alone"


def test_recordings_below_val_are_one_heap(root: Path) -> None:
    (root / "train").rename(root / "other")
    for name in ("cat", "dog"):
        (root / "val" / name).rename(root / name)
        (root / "val" / name).mkdir()
        (root / name).rename(root / "val" / name / "frames")
    assert not is_split_root(root) and len(calibration_set(root, CalibrationOptions(images=20)).paths) == 20
    (root / "val").rename(root / "train")
    assert is_split_root(root), "a train split is read as one, and what lies too deep there is told"
    with pytest.raises(DataError, match="is not in a class folder directly under"):
        calibration_set(root, OPTIONS)
