"""COCO results of predict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from live_fakes import grey_detector, grey_picture

from yoloquant.runtime.apps import predict as module
from yoloquant.runtime.apps.keys import PREDICT
from yoloquant.runtime.apps.predict import PredictOptions, predict
from yoloquant.runtime.apps.settings import VerbSettings
from yoloquant.runtime.errors import UsageError
from yoloquant.runtime.io.coco_results import CocoResults
from yoloquant.runtime.tasks import Task, spec_of


def test_boxes_are_x_y_width_height_and_classes_count_from_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.setattr(module, "has_display", lambda: False)
    source = tmp_path / "in"
    source.mkdir()
    for name in ("000000000012.png", "street.png"):
        cv2.imwrite(str(source / name), grey_picture(50))
    out, lines = tmp_path / "found.json", tmp_path / "found.jsonl"
    settings = {"source": str(source), "output": f"{out},{lines}"}
    predict([grey_detector()], PredictOptions.parse(VerbSettings(settings, PREDICT, "predict")))
    found = json.loads(out.read_text())
    expected = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [e["image_id"] for e in found] == [12, "street"] and [e["file_name"] for e in found] == [
        e["file"] for e in expected
    ]
    for entry, line in zip(found, expected, strict=True):
        x, y, width, height = entry["bbox"]
        assert np.allclose([x, y, x + width, y + height], line["xyxy"][0], atol=2e-3)
        assert (entry["category_id"] - 1, entry["category_name"]) == (line["class_id"][0], line["names"][0])
        assert entry["score"] == line["confidence"][0]
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


def test_a_classifier_has_no_boxes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"use \.jsonl"):
        CocoResults(tmp_path / "a.json", ("a",), spec_of(Task.CLASSIFY))
