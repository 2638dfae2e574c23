"""Hugging Face data sets on disk, written here as ``save_to_disk`` and ``to_parquet`` write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from other_formats import square

from yoloquant.data.calibration import calibration_set
from yoloquant.data.convert import as_yolo
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import DataError
from yoloquant.types import ModelInfo, Task

pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet

NAMES = ["cat", "dog"]
IMAGE = {"_type": "Image"}
CLASS = {"names": NAMES, "_type": "ClassLabel"}
BOX = {"feature": {"dtype": "float32", "_type": "Value"}, "length": 4, "_type": "Sequence"}
OBJECTS = {"feature": {"bbox": BOX, "category": CLASS}, "_type": "Sequence"}  # before datasets 4
LISTED = {"_type": "List", "feature": {"bbox": BOX, "category": CLASS}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOQUANT_CACHE", str(tmp_path / "cache"))


def _table(features: dict[str, Any], rows: list[dict[str, Any]]) -> pa.Table:
    schema_note = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.Table.from_pylist(rows).replace_schema_metadata(schema_note)


def _image(number: int) -> dict[str, Any]:
    return {"bytes": cv2.imencode(".png", square(number))[1].tobytes(), "path": None}


def _rows(boxes: list[list[float]], label: int = 1, *, split: bool = False) -> list[dict[str, Any]]:
    objects: Any = {"bbox": boxes, "category": [label] * len(boxes)}
    if split:
        objects = [{"bbox": box, "category": label} for box in boxes]
    return [{"image_id": n, "image": _image(n), "objects": objects} for n in range(2)]


def _save(folder: Path, table: pa.Table) -> None:
    """As ``Dataset.save_to_disk``."""
    folder.mkdir(parents=True)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as to,
    ):
        to.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))


@pytest.mark.parametrize(("objects", "split"), [(OBJECTS, False), (LISTED, True)])
def test_objects_saved_to_disk(tmp_path: Path, objects: dict[str, Any], split: bool) -> None:
    features = {"image": IMAGE, "objects": objects}
    for name in ("train", "validation"):
        _save(tmp_path / "set" / name, _table(features, _rows([[4, 8, 16, 20]], split=split)))
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    found = ValidationSet.open(tmp_path / "set", ModelInfo(Task.DETECT, ("dog", "cat"), (64, 64)))
    assert [i.path.name for i in found.images] == ["0.png", "1.png"]
    assert found.images[0].classes.tolist() == [0]
    np.testing.assert_allclose(found.images[0].boxes, [[0.3, 0.45, 0.4, 0.5]], atol=1e-6)


def test_folders_of_one_split_are_read_together(tmp_path: Path) -> None:
    features = {"image": IMAGE, "objects": OBJECTS}
    for name in ("train", "train_more", "validation"):
        _save(tmp_path / "set" / name, _table(features, _rows([[4, 8, 16, 20]])))
    (tmp_path / "set" / "dataset_dict.json").write_text("{}")
    info = ModelInfo(Task.DETECT, ("cat", "dog"), (64, 64))
    assert [len(ValidationSet.open(tmp_path / "set", info, split=s)) for s in ("train", "val")] == [4, 2]


def test_whole_images_in_parquet_become_class_folders(tmp_path: Path) -> None:
    rows = [{"image": _image(n), "label": n % 2} for n in range(4)]
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        pyarrow.parquet.write_table(
            _table({"image": IMAGE, "label": CLASS}, rows), tmp_path / "data" / f"{split}-00000-of-00001.parquet"
        )
    folder = Path(as_yolo(tmp_path))
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*.png"))[:2] == ["test/cat/0.png", "test/cat/2.png"]
    found = ValidationSet.open(tmp_path, ModelInfo(Task.CLASSIFY, ("cat", "dog"), (64, 64)))
    assert [i.classes.tolist() for i in found.images] == [[0], [0], [1], [1]] and found.source == str(tmp_path)
    with pytest.raises(DataError, match=r"4 of 4 images in split 'train' .* are also in the split that is scored"):
        calibration_set(tmp_path)
    with pytest.raises(DataError, match="labels whole images, and a detector needs labels of objects"):
        ValidationSet.open(tmp_path, ModelInfo(Task.DETECT, ("cat", "dog"), (64, 64)))


@pytest.mark.parametrize(
    ("features", "rows", "message"),
    [
        ({"image": IMAGE, "objects": OBJECTS}, _rows([[4, 8, 36, 44]]), "2 of 2 boxes.*are these corners"),
        ({"image": IMAGE, "objects": OBJECTS}, _rows([[4, 8, 6, 4]], label=2), "class 2, but there are 2 class names"),
        ({"objects": OBJECTS}, _rows([[4, 8, 6, 4]]), "has no column of images"),
        ({"image": IMAGE, "image_id": {}}, _rows([[4, 8, 6, 4]]), "neither objects .* nor a class label"),
        ({"image": IMAGE, "objects": {"feature": {"bbox": BOX}}}, _rows([[4, 8, 6, 4]]), "must hold boxes"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, features: Any, rows: Any, message: str) -> None:
    _save(tmp_path / "set", _table(features, rows))
    with pytest.raises(DataError, match=message):
        ValidationSet.open(tmp_path / "set", ModelInfo(Task.DETECT, ("cat", "dog"), (64, 64)))


def test_files_without_a_description(tmp_path: Path) -> None:
    _save(tmp_path / "set", pa.Table.from_pylist([{"image": b""}]))
    with pytest.raises(DataError, match="does not say what its columns are"):
        as_yolo(tmp_path / "set")
    (tmp_path / "set" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(DataError, match=r"is listed in .*state\.json, but does not exist"):
        as_yolo(tmp_path / "set")
