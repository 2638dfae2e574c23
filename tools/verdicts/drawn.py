"""Models that find exactly what the labels say, or almost: verdicts on them need no network."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.evaluation.gate import load_gate
from yoloquant.evaluation.verdict import ArtifactInfo, VerdictOptions, reach_verdict
from yoloquant.runtime.core.letterbox import place
from yoloquant.runtime.core.runner import Runner
from yoloquant.types import HeadLayout, ModelInfo, Task

SIDE = 64


class Known(Runner):
    """Gives known detections, image by image.

    Args:
        names: Class names.
        rows: For each image (n, 6): x1 y1 x2 y2 score class in the input's pixels.
    """

    def __init__(self, names: tuple[str, ...], rows: list[np.ndarray]) -> None:
        self.info = ModelInfo(Task.DETECT, names, (SIDE, SIDE), end2end=True)
        self.layout, self.rows, self.index = HeadLayout.END2END, rows, -1

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """The next image's detections, padded to 300 rows."""
        self.index += 1
        found = np.zeros((1, 300, 6), np.float32)
        rows = self.rows[self.index]
        found[0, : len(rows)] = rows
        return (found,)


def labelled_set(folder: Path, classes: int, images: int) -> Path:
    """A data set with two boxes an image; returns its yaml."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part / "val").mkdir(parents=True)
    for index in range(images):
        cv2.imwrite(str(folder / "images" / "val" / f"{index:05}.png"), rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8))
        rows = [f"{(2 * index + k) % classes} {0.3 + 0.4 * k} 0.5 0.2 0.3" for k in range(2)]
        (folder / "labels" / "val" / f"{index:05}.txt").write_text("\n".join(rows))
    names = [f"class {i}" for i in range(classes)]
    path = folder / "data.yaml"
    path.write_text(f"path: {folder}\ntrain: images/val\nval: images/val\nnames: {names}\n")
    return path


def verdicts_of_many_classes(folder: Path, classes: int, images: int) -> dict[str, str]:
    """Verdicts on an artifact that finds all that FP32 finds, and on one that takes each class for the next one."""
    data = ValidationSet.from_yaml(labelled_set(folder, classes, images))
    where = place((SIDE, SIDE), (SIDE, SIDE))
    rows = []
    for image in data.images:
        boxes = where.to_input(image.boxes)
        rows.append(np.column_stack([boxes, np.full(len(boxes), 0.9), image.classes]))
    wrong = [np.column_stack([r[:, :5], (r[:, 5] + 1) % classes]) for r in rows]
    runners = {name: Known(data.names, found) for name, found in (("fp32", rows), ("same", rows), ("swapped", wrong))}
    evaluation = evaluate(runners, data, EvaluateOptions())
    facts = {name: ArtifactInfo(target="onnxruntime") for name in runners}
    options = VerdictOptions(bootstrap=BootstrapOptions(replicates=100), examples=0)
    result = reach_verdict(
        evaluation, load_gate({"name": "many", "limits": {"fidelity": 0.9, "map_drop": 0.02}}), facts, options
    )
    return {target.target: target.verdict.value for target in result.targets}
