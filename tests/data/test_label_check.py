"""Data of another task or other classes are seen before a training starts; one broken file is not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from yoloquant.data.label_check import check_labels
from yoloquant.errors import DataError
from yoloquant.types import ModelInfo, Task

BOX, POLYGON, CORNERS = "0 .5 .5 .2 .2", "0 .2 .2 .4 .2 .4 .5 .3 .6 .2 .6", "0 .2 .2 .4 .3 .3 .6 .1 .5"
KEYPOINTS = f"{BOX} .5 .5 2 .4 .4 1"


def info_of(task: Task) -> ModelInfo:
    return ModelInfo(task, ("a", "b"), (64, 64), kpt_shape=(2, 3) if task is Task.POSE else None)


def write(root: Path, lines: list[str], further: str = "") -> Path:
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i, line in enumerate(lines):
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), np.full((16, 16, 3), i, np.uint8))
            (root / "labels" / split / f"{i}.txt").write_text(f"{line}\n", encoding="utf-8")
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: [a, b]\n{further}", encoding="utf-8")
    return root / "data.yaml"


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        (Task.SEGMENT, BOX, "train/0.txt:1: 5 columns, a box without a polygon"),
        (Task.OBB, "0 .5 .5 .2 .1 .7", "train/0.txt:1: 6 columns, a rotated box is"),
        (Task.POSE, KEYPOINTS, "has no 'kpt_shape'"),
        (Task.DETECT, "0 .5 .5", "train/0.txt:1: 3 columns"),
    ],
)
def test_another_tasks_labels_are_named(tmp_path: Path, task: Task, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_labels(write(tmp_path, [line, line]), info_of(task))


@pytest.mark.parametrize(
    ("task", "line", "further"),
    [
        (Task.DETECT, BOX, ""),
        (Task.SEGMENT, POLYGON, ""),
        (Task.OBB, CORNERS, ""),
        (Task.POSE, KEYPOINTS, "kpt_shape: [2, 3]"),
    ],
)
def test_one_broken_file_is_ultralytics_affair(tmp_path: Path, task: Task, line: str, further: str) -> None:
    check_labels(write(tmp_path, ["0 broken", "", line], further), info_of(task))


def test_images_without_objects_and_folders_without_labels_pass(tmp_path: Path) -> None:
    data = write(tmp_path, ["", ""])
    check_labels(data, info_of(Task.SEGMENT))
    data.unlink()
    check_labels(tmp_path, info_of(Task.SEGMENT))


def test_a_classifiers_folders_are_looked_at(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "val/a"):
        (tmp_path / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / name / "0.png"), np.zeros((16, 16, 3), np.uint8))
    check_labels(tmp_path, info_of(Task.CLASSIFY))
    (tmp_path / "train" / "b" / "0.png").unlink()
    with pytest.raises(DataError, match=r"class folder .*train/b holds no image"):
        check_labels(tmp_path, info_of(Task.CLASSIFY))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("[a, b, c]", r"the model knows 2 classes, data '.*data.yaml' has 3; give the data set"),
        ("[a]", "the model knows 2 classes, data .* has 1"),
        ("[B, a]", "in another order: class 0 is 'B' there and 'a' in the model"),
    ],
)
def test_classes_are_the_models_unless_all_are_one(tmp_path: Path, names: str, message: str) -> None:
    data = write(tmp_path, [BOX, BOX])
    data.write_text(data.read_text(encoding="utf-8").replace("[a, b]", names), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        check_labels(data, info_of(Task.DETECT))
    check_labels(data, info_of(Task.DETECT), single=True)


def test_the_models_number_of_other_names_passes(tmp_path: Path) -> None:
    data = write(tmp_path, [BOX])
    data.write_text(data.read_text(encoding="utf-8").replace("[a, b]", "[cat, dog]"), encoding="utf-8")
    check_labels(data, info_of(Task.DETECT))


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("a", "b", "c"), "the model knows 2 classes, data .* has 3"),
        # sorted, in which order folders count
        (("B", "a"), "class 0 is 'B' there and 'a' in the model"),
        (("x", "y"), None),
    ],
)
def test_class_folders_are_the_models(tmp_path: Path, folders: tuple[str, ...], message: str | None) -> None:
    for split in ("train", "val"):
        for name in folders:
            (tmp_path / split / name).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / split / name / "0.png"), np.zeros((16, 16, 3), np.uint8))
    info = info_of(Task.CLASSIFY)
    if message is None:
        check_labels(tmp_path, info)
        return
    with pytest.raises(DataError, match=message):
        check_labels(tmp_path, info)


@pytest.mark.parametrize("task", [Task.OBB, Task.CLASSIFY])
def test_images_of_which_none_can_be_read(tmp_path: Path, task: Task) -> None:
    if task is Task.CLASSIFY:
        data = tmp_path
        for place in ("train/a/0.png", "train/b/1.png", "val/a/0.png", "val/b/1.png"):
            (tmp_path / place).parent.mkdir(parents=True)
            cv2.imwrite(str(tmp_path / place), np.zeros((16, 16, 3), np.uint8))
    else:
        data = write(tmp_path, [CORNERS, CORNERS])
    check_labels(data, info_of(task))
    first, second = sorted(p for p in tmp_path.rglob("*.png") if "train" in p.parts)
    first.write_bytes(b"<html>not found</html>")
    # one of several is Ultralytics' affair
    check_labels(data, info_of(task))
    second.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=rf"{first.name} is unreadable \(it holds text: '<html>not found</html>'\)"):
        check_labels(data, info_of(task))
