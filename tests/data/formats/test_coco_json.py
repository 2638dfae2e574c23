"""COCO JSON as people have it: layouts, crowds, masks, keypoints, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from other_formats import square

from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import DataError
from yoloquant.runtime.core.rle import encode
from yoloquant.types import ModelInfo, Task

Change = Callable[[dict[str, Any]], None]
NAMES = ("cat", "dog")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOQUANT_CACHE", str(tmp_path / "cache"))


def _write(folder: Path, name: str = "val.json", change: Change | None = None, **first: Any) -> Path:
    """Two images of 40 x 40 pixels, one object each; ``first`` changes the first object."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(2):
        cv2.imwrite(str(folder / f"{number}.png"), square(number))
    box = {"bbox": [4, 8, 16, 20], "iscrowd": 0}
    content: dict[str, Any] = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 40} for n in range(2)],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 2, **box, **first},
            {"id": 2, "image_id": 1, "category_id": 9, **box},
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    if change is not None:
        change(content)
    (folder / name).write_text(json.dumps(content))
    return folder / name


def _open(data: Path, task: Task = Task.DETECT, **keys: Any) -> ValidationSet:
    return ValidationSet.open(data, ModelInfo(task, NAMES, (64, 64), **keys))


def test_ids_with_gaps_become_classes(tmp_path: Path) -> None:
    found = _open(_write(tmp_path))
    assert [i.classes.tolist() for i in found.images] == [[0], [1]] and found.notes == ()
    np.testing.assert_allclose(found.images[0].boxes, [[0.3, 0.45, 0.4, 0.5]], atol=1e-7)


def test_crowds_are_left_out_and_told(tmp_path: Path) -> None:
    found = _open(_write(tmp_path, iscrowd=1))
    assert found.boxes == 1 and "1 crowd regions are left out" in found.notes[0]


def test_roboflow_layout_and_yaml(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        _write(tmp_path / split, "_annotations.coco.json")
    assert len(_open(tmp_path)) == 2
    yaml = tmp_path / "own" / "data.yaml"
    yaml.parent.mkdir()
    yaml.write_text("path: ..\nval: valid/_annotations.coco.json\nimages: {val: train}\n")
    found = _open(yaml)
    assert found.images[0].path.resolve() == (tmp_path / "train" / "0.png").resolve()


def test_images_of_one_name_stay_apart(tmp_path: Path) -> None:
    def folders(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["file_name"] = f"camera{image['id']}/0.png"
            (tmp_path / f"camera{image['id']}").mkdir()
            cv2.imwrite(str(tmp_path / image["file_name"]), square(image["id"]))

    found = _open(_write(tmp_path, change=folders))
    assert {i.path.name for i in found.images} == {"0.png", "camera1__0.png"}
    assert len({i.sha256 for i in found.images}) == 2


def test_polygons_and_encoded_masks(tmp_path: Path) -> None:
    mask = np.ones((20, 16), np.uint8)
    rle = encode(mask, (4, 8), (40, 40))
    polygons = [[4, 8, 20, 8, 20, 28, 4, 28]]
    for number, segmentation in enumerate((polygons, rle, [*polygons, [30, 30, 36, 30, 36, 36]])):
        data = _write(tmp_path / str(number), segmentation=segmentation, change=lambda c: c["annotations"].pop())
        found = _open(data, Task.SEGMENT).images[0].parts["polygons"][0] * 40
        assert np.abs(found.min(axis=0) - [4, 8]).max() < 1e-4
        assert np.abs(found.max(axis=0) - ([36, 36] if number == 2 else [20, 28])).max() <= 1.0001
    with pytest.raises(DataError, match="annotation 1 has no polygon"):
        _open(_write(tmp_path / "none"), Task.SEGMENT)


def test_rotated_boxes_of_polygons(tmp_path: Path) -> None:
    data = _write(tmp_path, segmentation=[[10, 4, 16, 10, 10, 16, 4, 10]], change=lambda c: c["annotations"].pop())
    corners = _open(data, Task.OBB).images[0].parts["corners"][0] * 40
    assert corners.round(3).tolist() == [[10, 4], [16, 10], [10, 16], [4, 10]]


def test_keypoints(tmp_path: Path) -> None:
    def described(content: dict[str, Any]) -> None:
        for category in content["categories"]:
            category["keypoints"] = ["nose", "left_eye", "right_eye"]
        content["annotations"].pop()

    data = _write(tmp_path, keypoints=[8, 10, 2, 12, 16, 1, 0, 0, 0], change=described)
    found = _open(data, Task.POSE, kpt_shape=(3, 3))
    np.testing.assert_allclose(
        found.images[0].parts["keypoints"][0] * [40, 40, 1], [[8, 10, 2], [12, 16, 1], [0, 0, 0]], atol=1e-4
    )
    copy = next((tmp_path / "cache").rglob("data.yaml")).read_text()
    assert "kpt_shape:\n- 3\n- 3" in copy and "flip_idx:\n- 0\n- 2\n- 1" in copy
    with pytest.raises(DataError, match="annotation 1 has no keypoints"):
        _open(_write(tmp_path / "none", change=described), Task.POSE, kpt_shape=(3, 3))


def _drop(key: str) -> Change:
    return lambda content: content.pop(key) and None


def _set(place: str, **values: Any) -> Change:
    return lambda content: content[place][0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("categories"), "categories must be lists"),
        (_set("annotations", image_id=77), "annotation 1 is of image 77, which 'images' does not list"),
        (_set("annotations", category_id=4), "annotation 1 has category 4, which 'categories' does not list"),
        (_set("annotations", bbox=[1, 2, 3]), "'bbox' must be x, y, width, height"),
        (_set("images", file_name="no.png"), "1 of 2 images are missing, the first is 'no.png'"),
        (_set("images", id=1), "annotation 1 is of image 0"),
        (_set("images", width=20), "says that 0.png is 20 x 40 pixels, the file is 40 x 40"),
        (_set("categories", id="nine"), "needs a whole number 'id'"),
        (lambda c: [a.update(bbox=[30, 30, 38, 38]) for a in c["annotations"]], "2 of 2 boxes.*are these corners"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _open(_write(tmp_path, change=change))
    assert not list((tmp_path / "cache").rglob("data.yaml"))


def test_results_are_no_labels(tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text("[]")
    with pytest.raises(DataError, match="judge results with predictions="):
        _open(tmp_path / "found.json")
    with pytest.raises(DataError, match=r"none\.json' does not exist"):
        _open(tmp_path / "none.json")
