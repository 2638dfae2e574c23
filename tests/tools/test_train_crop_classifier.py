"""Crops of labelled objects, and the classifier that starts from a detector."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tools.train_crop_classifier import DEFAULTS, chosen_classes, cut, main, square_of, started

NAMES = ("cat", "traffic light", "dog")


def _data(root: Path, labels: dict[str, list[str]]) -> Path:
    """One image a split of 100 x 200 pixels, whose columns hold their number."""
    for split, lines in labels.items():
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        picture = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
        cv2.imwrite(str(root / "images" / split / "one.png"), picture)
        (root / "labels" / split / "one.txt").write_text("".join(f"{line}\n" for line in lines))
    yaml = root / "data.yaml"
    yaml.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [{', '.join(NAMES)}]\n")
    return yaml


def _options(data: Path, **changed: str) -> dict[str, str]:
    return {**DEFAULTS, "data": str(data), "classes": "2", "margin": "0", **changed}


def test_a_square_is_centred_and_ends_with_the_image() -> None:
    assert square_of(np.array([0.5, 0.5, 0.2, 0.2]), (100, 200), 0.0) == (80, 30, 120, 70)
    assert square_of(np.array([0.5, 0.5, 0.2, 0.2]), (100, 200), 0.5) == (70, 20, 130, 80)
    assert square_of(np.array([0.05, 0.9, 0.2, 0.2]), (100, 200), 0.0) == (0, 70, 30, 100)


def test_classes_are_those_of_which_every_split_has_many() -> None:
    counts = [Counter({0: 9, 1: 3, 2: 5, 3: 100}), Counter({0: 1, 1: 3, 2: 4})]
    assert chosen_classes(counts, 2) == [2, 1]
    with pytest.raises(SystemExit, match="only 3 have objects"):
        chosen_classes(counts, 4)


def test_objects_are_cut_into_folders_of_their_classes(tmp_path: Path) -> None:
    small, cat, light, dog = "0 .5 .5 .1 .1", "0 .5 .5 .2 .4", "1 .8 .5 .2 .2", "2 .25 .5 .2 .4"
    left, cats = "1 .2 .5 .2 .2", [cat, "0 .3 .5 .2 .4", "0 .7 .5 .2 .4"]
    data = _data(tmp_path / "set", {"train": [small, cat, light, left, dog], "val": [light, *cats]})
    lines = cut(_options(data, most="2"), tmp_path / "out")
    assert lines[0] == "train: 3 crops of 2 classes (cat 1, traffic light 2)", "dog has none in val, one cat is small"
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.jpg"))
    assert found == [
        *("train/cat/0_one_1.jpg", "train/traffic_light/0_one_2.jpg", "train/traffic_light/0_one_3.jpg"),
        *("val/cat/0_one_1.jpg", "val/cat/0_one_2.jpg", "val/traffic_light/0_one_0.jpg"),
    ]
    crop = cv2.imread(str(tmp_path / "out" / "val" / "cat" / "0_one_1.jpg"))
    assert crop.shape == (40, 40, 3)
    assert np.abs(crop[20, :, 0].astype(int) - np.arange(80, 120)).max() <= 3, "the columns of the box"


def test_sets_of_other_classes_are_refused(tmp_path: Path) -> None:
    one = _data(tmp_path / "one", {"train": ["0 .5 .5 .2 .4"], "val": ["0 .5 .5 .2 .4"]})
    two = _data(tmp_path / "two", {"train": ["0 .5 .5 .2 .4"], "val": ["0 .5 .5 .2 .4"]})
    two.write_text(two.read_text().replace("dog", "cow"))
    with pytest.raises(SystemExit, match="names other classes"):
        cut({**_options(one), "data": f"{one},{two}"}, tmp_path / "out")


def test_a_folder_with_files_and_a_missing_model_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.jpg").touch()
    assert main([f"out={tmp_path}"]) == 2 and "not an empty folder" in capsys.readouterr().err
    assert main([f"out={tmp_path / 'new'}", f"model={tmp_path / 'none.pt'}"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_the_backbone_is_the_detectors(tmp_path: Path) -> None:
    from ultralytics import YOLO

    detector = YOLO("yolov8n.yaml")
    detector.save(tmp_path / "detector.pt")
    classifier = started("yolov8n-cls.yaml", str(tmp_path / "detector.pt"))
    for name in ("model.0.conv.weight", "model.8.cv2.conv.weight"):
        kept = detector.model.state_dict()[name].half().float()  # checkpoints are saved in half precision
        assert torch.equal(classifier.model.state_dict()[name].float(), kept), name
    assert not torch.equal(YOLO("yolov8n-cls.yaml").model.model[0].conv.weight, classifier.model.model[0].conv.weight)
    with pytest.raises(SystemExit, match=r"share [0-9]+ of [0-9]+ tensors"):
        started("yolo11s-cls.yaml", str(tmp_path / "detector.pt"))
