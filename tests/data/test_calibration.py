"""Calibration images: the same everywhere, and never the images that exports are scored on."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from yoloquant.data.calibration import MIN_IMAGES, CalibrationOptions, calibration_set
from yoloquant.errors import CalibrationError, DataError, UsageError

TEN = CalibrationOptions(images=10)


def write_set(root: Path, count: int = 20, **keys: str) -> Path:
    """A data set whose images all differ, six of them to be scored; returns its yaml."""
    for split, number, seed in (("train", count, 0), ("val", 6, 1)):
        (root / "images" / split).mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for i in range(number):
            cv2.imwrite(str(root / "images" / split / f"{i:02d}.png"), rng.integers(0, 255, (24, 32, 3), np.uint8))
    lines = {"path": str(root), "train": "images/train", "val": "images/val", "names": "[a, b]", **keys}
    yaml = root / "data.yaml"
    yaml.write_text("".join(f"{k}: {v}\n" for k, v in lines.items() if v))
    return yaml


def names(data: Path | str, options: CalibrationOptions = TEN) -> list[str]:
    """Names of the images drawn."""
    return [p.name for p in calibration_set(data, options).paths]


def test_deterministic_and_seeded(tmp_path: Path) -> None:
    data = write_set(tmp_path / "a")
    first = calibration_set(data, TEN)
    assert first == calibration_set(data, TEN) and len(first) == 10 == len(set(first.paths))
    assert first.split == "train" and all("train" in str(p) for p in first.paths)
    other = calibration_set(data, CalibrationOptions(images=10, seed=1))
    assert other.paths != first.paths and other.sha256 != first.sha256


def test_independent_of_the_place(tmp_path: Path) -> None:
    data = write_set(tmp_path / "a")
    here = calibration_set(data, TEN)
    (tmp_path / "other").mkdir()
    shutil.copytree(tmp_path / "a", tmp_path / "other" / "place")
    moved = tmp_path / "other" / "place" / "data.yaml"
    moved.write_text(moved.read_text().replace(str(tmp_path / "a"), str(tmp_path / "other" / "place")))
    there = calibration_set(moved, TEN)
    assert [p.name for p in there.paths] == [p.name for p in here.paths] and there.sha256 == here.sha256


def test_a_larger_sample_contains_the_smaller(tmp_path: Path) -> None:
    data = write_set(tmp_path / "a")
    assert names(data, CalibrationOptions(images=15))[:10] == names(data)
    assert len(names(data, CalibrationOptions(images=500))) == 20


def test_a_list_file_and_its_order_do_not_matter(tmp_path: Path) -> None:
    data = write_set(tmp_path / "a")
    expected = names(data)
    listing = tmp_path / "a" / "train.txt"
    listing.write_text("\n".join(f"./images/train/{i:02d}.png" for i in reversed(range(20))))
    data.write_text(data.read_text().replace("train: images/train", "train: train.txt"))
    assert names(data) == expected


def test_a_folder(tmp_path: Path) -> None:
    data = write_set(tmp_path / "a")
    found = calibration_set(tmp_path / "a" / "images" / "train", TEN)
    assert found.split == "" and [p.name for p in found.paths] == names(data)
    with pytest.raises(DataError, match="holds no images"):
        calibration_set((tmp_path / "empty", (tmp_path / "empty").mkdir())[0], TEN)


def test_scored_images_under_other_names_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_set(tmp_path / "a")
    train, val = tmp_path / "a" / "images" / "train", tmp_path / "a" / "images" / "val"
    copies = {f"renamed{i}.png" for i in range(6)}
    for i in range(6):
        shutil.copy(val / f"{i:02d}.png", train / f"renamed{i}.png")
    everything = set(names(data, CalibrationOptions(images=100)))
    assert len(everything) == 20 and not everything & copies and "left out" in caplog.text
    allowed = set(names(data, CalibrationOptions(images=100, allow_scored=True)))
    assert allowed >= copies
    other, scored = (train / "00.png").read_bytes(), (val / "00.png").read_bytes()
    size = max(len(other), len(scored))
    (val / "00.png").write_bytes(scored.ljust(size, b"\0"))
    (train / "same_size.png").write_bytes(other.ljust(size, b"\0"))
    assert "same_size.png" in names(data, CalibrationOptions(images=100)), "the content decides, not the size"


@pytest.mark.parametrize("key", ["val", "validation"])
def test_train_and_val_are_the_same(tmp_path: Path, key: str) -> None:
    keys = {"val": "", key: "images/train"} if key != "val" else {"val": "images/train"}
    data = write_set(tmp_path / "a", **keys)
    with pytest.raises(DataError, match="also in the split that is scored"):
        calibration_set(data, TEN)
    assert len(calibration_set(data, CalibrationOptions(images=10, allow_scored=True))) == 10


def test_one_error_page_in_place_of_every_image_is_no_matter_of_splits(tmp_path: Path) -> None:
    data = write_set(tmp_path / "a")
    for image in (tmp_path / "a").rglob("*.png"):
        image.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"is unreadable \(it holds text: '<html>not found</html>'\)"):
        calibration_set(data, TEN)


def test_the_scored_split_is_refused(tmp_path: Path) -> None:
    data = write_set(tmp_path / "a", val="images/val", test="images/train")
    with pytest.raises(DataError, match="scores would flatter"):
        calibration_set(data, CalibrationOptions(images=10, split="val"))
    with pytest.raises(DataError, match="also in the split"):
        calibration_set(data, CalibrationOptions(images=10, scored_split="test"))
    allowed = CalibrationOptions(images=10, split="val", scored_split="val", allow_scored=True)
    with pytest.raises(CalibrationError, match=f"at least {MIN_IMAGES}"):
        calibration_set(data, allowed)  # six images


def test_a_set_without_val_can_calibrate(tmp_path: Path) -> None:
    assert len(names(write_set(tmp_path / "a", val=""))) == 10
    assert len(names(write_set(tmp_path / "b", val="images/gone"))) == 10


@pytest.mark.parametrize("count", [0, 1, MIN_IMAGES - 1])
def test_too_few_are_asked_for(tmp_path: Path, count: int) -> None:
    with pytest.raises(UsageError, match="a whole number from 8"):
        calibration_set(tmp_path, CalibrationOptions(images=count))


def test_too_few_are_there(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="7 calibration images; at least 8"):
        calibration_set(write_set(tmp_path / "a", 7), TEN)
    assert len(names(write_set(tmp_path / "b", 8))) == 8


@pytest.mark.parametrize("data", ["missing.yaml", "nowhere", "https://example.org/data.yaml"])
def test_missing_data(data: str) -> None:
    with pytest.raises(DataError):
        calibration_set(data, TEN)


def test_missing_split(tmp_path: Path) -> None:
    data = write_set(tmp_path / "a")
    with pytest.raises(DataError, match="no split 'trian'"):
        calibration_set(data, CalibrationOptions(images=10, split="trian"))
    gone = write_set(tmp_path / "b", train="images/gone")
    with pytest.raises(DataError, match="does not exist"):
        calibration_set(gone, TEN)


def test_empty_and_missing_files(tmp_path: Path) -> None:
    data = write_set(tmp_path / "a")
    (tmp_path / "a" / "images" / "train" / "03.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"03\.png is missing or empty"):
        calibration_set(data, CalibrationOptions(images=20))
    listed = write_set(tmp_path / "b", 0)
    (tmp_path / "b" / "train.txt").write_text("\n".join(f"./images/train/{i}.png" for i in range(9)))
    listed.write_text(listed.read_text().replace("train: images/train", "train: train.txt"))
    with pytest.raises(DataError, match="missing or empty"):
        calibration_set(listed, TEN)


def test_images_are_letterboxed(tmp_path: Path) -> None:
    data = write_set(tmp_path / "a")
    found = calibration_set(data, TEN)
    tensors = list(found.tensors((64, 96)))
    assert len(tensors) == 10
    for tensor in tensors:
        assert tensor.shape == (1, 3, 64, 96) and tensor.dtype == np.float32
        assert tensor.min() >= 0 and tensor.max() <= 1
    image = cv2.imread(str(found.paths[0]))
    (big,) = [next(iter(found.tensors((24, 32))))]
    np.testing.assert_array_equal(big[0], image[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) / 255)


def test_grey_and_transparent_images_work_and_broken_ones_are_named(tmp_path: Path) -> None:
    data = write_set(tmp_path / "a", 10)
    train = tmp_path / "a" / "images" / "train"
    cv2.imwrite(str(train / "00.png"), np.full((20, 20), 7, np.uint8))
    cv2.imwrite(str(train / "01.png"), np.full((20, 20, 4), 7, np.uint8))
    assert {t.shape for t in calibration_set(data, TEN).tensors((32, 32))} == {(1, 3, 32, 32)}
    (train / "02.png").write_bytes(b"no image at all")
    with pytest.raises(DataError, match=r"02\.png is unreadable \(it holds text: 'no image at all'\)"):
        calibration_set(data, TEN)  # before a model runs
