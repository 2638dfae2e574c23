"""Labels as training saw them: the same as in Ultralytics' own data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core_models import checkpoint, write_images

from yoloquant.bridge.checkpoint import load_model
from yoloquant.data.dataset import ValidationSet
from yoloquant.data.trained_classes import TrainedClasses
from yoloquant.errors import DataError
from yoloquant.quantization.artifact import plain_arguments
from yoloquant.types import ModelInfo, Task

ARGUMENTS: dict[str, dict[str, Any]] = {
    "all": {},
    "single": {"single_cls": True},
    "some": {"classes": [0, 2]},
    "one, alone": {"classes": 1, "single_cls": True},
    "none of them": {"classes": [7]},
}


@pytest.mark.parametrize("given", ARGUMENTS.values(), ids=ARGUMENTS)
def test_labels_are_those_of_ultralytics(tmp_path: Path, given: dict[str, Any]) -> None:
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset
    from ultralytics.utils import DEFAULT_CFG

    data = write_images(tmp_path / "set")
    single = bool(given.get("single_cls"))
    names = ("thing",) if single else ("cat", "dog", "bird")
    ours = ValidationSet.open(data, ModelInfo(Task.DETECT, names, (64, 64)), trained=TrainedClasses.of(given))
    classes = given.get("classes")
    theirs = YOLODataset(
        img_path=str(tmp_path / "set" / "images" / "val"), data=check_det_dataset(str(data)), imgsz=64, augment=False,
        hyp=DEFAULT_CFG, single_cls=single, classes=[classes] if isinstance(classes, int) else classes,
    )  # fmt: skip
    assert len(ours) == len(theirs.labels) == 5 and (len(ours.names) == 1) == single
    assert not single or ours.names == ("thing",)
    for image, label in zip(ours.images, sorted(theirs.labels, key=lambda e: e["im_file"]), strict=True):
        np.testing.assert_array_equal(image.classes, label["cls"].ravel().astype(np.int64))
        np.testing.assert_array_equal(image.boxes, label["bboxes"])


def test_classes_are_the_models_whatever_order_the_data_have(tmp_path: Path) -> None:
    data = write_images(tmp_path / "set")
    ours = ValidationSet.open(
        data, ModelInfo(Task.DETECT, ("bird", "dog", "cat"), (64, 64)), trained=TrainedClasses.of({"classes": [2]})
    )
    theirs = ValidationSet.open(data, ModelInfo(Task.DETECT, ("cat", "dog", "bird"), (64, 64)))
    wanted = [int((image.classes == 0).sum()) for image in theirs.images]  # the model's class 2 is the data's "cat"
    assert [image.classes.tolist() for image in ours.images] == [[2] * count for count in wanted] and sum(wanted)
    assert ours.names == ("bird", "dog", "cat") and any("mapped by name" in note for note in ours.notes)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (None, TrainedClasses()),
        ({"classes": None, "single_cls": False}, TrainedClasses()),
        ({"classes": "0,1"}, TrainedClasses()),
        ({"classes": [0, -1]}, TrainedClasses()),
        ({"classes": 3}, TrainedClasses(only=(3,))),
        ({"single_cls": True}, TrainedClasses(single=True)),
    ],
)
def test_arguments_of_checkpoints(arguments: Any, found: TrainedClasses) -> None:
    assert TrainedClasses.of(arguments) == found and TrainedClasses.of(found.arguments) == found


def test_they_travel_through_checkpoints(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.pt", train_args={"imgsz": 64, "single_cls": True, "classes": [1], "data": "x"})
    host = load_model(path)
    assert host.trained == {"single_cls": True, "classes": [1]}
    host.module.args = {"single_cls": True, "classes": [1]}  # as Ultralytics attaches them to a live model
    assert load_model(host.module).trained == host.trained
    kept = plain_arguments(host.module, ModelInfo(Task.DETECT, ("a",), (64, 64)))
    assert kept["single_cls"] is True and kept["classes"] == [1]


def test_keypoints_are_no_polygons_for_a_detect_model(tmp_path: Path) -> None:
    data = write_images(tmp_path / "set")
    data.write_text(data.read_text() + "kpt_shape: [17, 2]\n")
    with pytest.raises(DataError, match=r"describes keypoints \(kpt_shape\), but the model is a detect model"):
        ValidationSet.from_yaml(data)
