"""On real weights and images, mAP equals what Ultralytics' own validator prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.predictions.read import read_predictions
from yoloquant.runtime.core.runner import Runner
from yoloquant.types import HeadLayout, ModelInfo, Task

DATASETS = Path(__file__).resolve().parents[2] / "datasets"


class BackendRunner(Runner):
    """The backend that Ultralytics' validator itself uses."""

    def __init__(self, path: Path) -> None:
        import torch
        from ultralytics.nn.autobackend import AutoBackend

        self.model = AutoBackend(str(path), device=torch.device("cpu"))
        self.model.eval()
        self.info = ModelInfo(Task.DETECT, tuple(self.model.names.values()), (640, 640))
        self.layout = HeadLayout.DECODED

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        import torch

        with torch.inference_mode():
            output = self.model(torch.from_numpy(image))
        return ((output[0] if isinstance(output, (list, tuple)) else output).numpy(),)


@pytest.mark.slow
def test_map_equals_ultralytics_val(shared: Path, tmp_path: Path) -> None:
    from ultralytics import YOLO

    images = sorted((shared / "data" / "coco256" / "images" / "val2017").iterdir())[:24]
    names = yaml.safe_load((shared / "data" / "coco256" / "coco256.yaml").read_text())["names"]
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for image in images:  # copied for the test only: Ultralytics writes a cache beside the labels
        (tmp_path / "images" / image.name).write_bytes(image.read_bytes())
        label = shared / "data" / "coco256" / "labels" / "val2017" / f"{image.stem}.txt"
        if label.exists():
            (tmp_path / "labels" / label.name).write_bytes(label.read_bytes())
    data = tmp_path / "data.yaml"
    data.write_text(yaml.safe_dump({"path": str(tmp_path), "train": "images", "val": "images", "names": names}))
    weights = tmp_path / "yolo11n.pt"
    weights.write_bytes((shared / "weights" / "yolo11n.pt").read_bytes())

    evaluation = evaluate({"fp32": BackendRunner(weights)}, ValidationSet.from_yaml(data), EvaluateOptions(warmup=0))
    ours = Comparer(evaluation, BootstrapOptions(replicates=2)).accuracy("fp32")
    theirs = YOLO(weights).val(
        data=str(data),
        imgsz=640,
        rect=False,
        batch=1,
        device="cpu",
        plots=False,
        project=str(tmp_path),
        verbose=False,
        save_json=True,
    )
    assert ours is not None
    assert ours.map50_95 == pytest.approx(theirs.box.map, abs=1e-6)
    assert ours.map50 == pytest.approx(theirs.box.map50, abs=1e-6)
    for index, value in zip(theirs.box.ap_class_index, theirs.box.all_ap, strict=True):
        assert ours.per_class[names[int(index)]] == pytest.approx(value.mean(), abs=1e-6)

    data_set, info = ValidationSet.from_yaml(data), ModelInfo(Task.DETECT, tuple(names.values()), (640, 640))
    file = read_predictions(tmp_path / "val" / "predictions.json", data_set, len(data_set), info)
    recorded = evaluate({}, data_set, EvaluateOptions(baseline="file"), recorded={"file": file.model})
    read = Comparer(recorded, BootstrapOptions(replicates=2)).accuracy("file")
    assert read is not None and read.map50_95 == pytest.approx(theirs.box.map, abs=1e-3)


def test_the_manifest_in_datasets_fits_the_coco_subset(shared: Path) -> None:
    data = ValidationSet.from_yaml(
        shared / "data" / "coco256" / "coco256.yaml", manifest=DATASETS / "coco256_val2017.json"
    )
    assert (len(data), data.boxes, len(data.names)) == (128, 898, 80)
    described = yaml.safe_load((DATASETS / "coco256_val2017.yaml").read_text())
    assert tuple(described["names"].values()) == data.names
    assert (DATASETS / described["manifest"]).is_file()
