"""Pascal VOC: layouts, difficult objects, and what is wrong with it. Its figures are held in test_convert.py."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from other_formats import square

from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import DataError
from yoloquant.types import ModelInfo, Task

INFO = ModelInfo(Task.DETECT, ("cat", "dog"), (64, 64))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOQUANT_CACHE", str(tmp_path / "cache"))


def _xml(name: str = "dog", difficult: int = 0, right: str = "21") -> str:
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>5</xmin><ymin>9</ymin>"
        f"<xmax>{right}</xmax><ymax>29</ymax></bndbox></object>"
    )


def _write(folder: Path, *objects: str, image: bool = True) -> Path:
    folder.mkdir(parents=True)
    if image:
        cv2.imwrite(str(folder / "a.png"), square(1))
    (folder / "a.xml").write_text(f"<annotation><filename>a.png</filename>{''.join(objects)}</annotation>")
    return folder


def test_folders_of_one_split_are_read_together(tmp_path: Path) -> None:
    for folder in ("train", "test", "test_night"):
        _write(tmp_path / "set" / folder, _xml(), _xml("cat"))
    assert [len(ValidationSet.open(tmp_path / "set", INFO, split=s)) for s in ("train", "test")] == [1, 2]


def test_folders_of_splits_and_difficult_objects(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        _write(tmp_path / "set" / split, _xml(), _xml("cat", difficult=1))
    found = ValidationSet.open(tmp_path / "set", INFO)
    assert found.images[0].classes.tolist() == [1] and "2 objects marked difficult" in found.notes[0]
    np.testing.assert_allclose(found.images[0].boxes, [[0.3, 0.45, 0.4, 0.5]], atol=1e-6)  # pixels count from 1


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (("<object/>",), "an object has no <name>"),
        ((_xml(right="wide"),), "a side of a <bndbox> is no number"),
        ((_xml(right=""),), "has no <bndbox><xmax>"),
        (("<object>",), "cannot be read as XML"),
        ((), "no XML file labels an object"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, objects: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ValidationSet.open(_write(tmp_path / "val", *objects).parent, INFO)


def test_missing_images_and_lists(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"its image 'a\.png' is missing"):
        ValidationSet.open(_write(tmp_path / "a" / "val", _xml(), image=False).parent, INFO)
    root = _write(tmp_path / "b" / "Annotations", _xml()).parent
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "val.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"b\.xml is listed in .*Main, but does not exist"):
        ValidationSet.open(root, INFO)
