"""Small data sets and runners with known detections, shared by the validation tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from yoloquant.runtime.core.runner import Runner
from yoloquant.types import HeadLayout, ModelInfo, Task

NAMES = ("cat", "dog", "bird")


def write_dataset(root: Path, count: int = 6, size: tuple[int, int] = (48, 64), seed: int = 0) -> Path:
    """Write a small labelled data set of noise images and return its yaml.

    Image i carries its own index in its pixels (see ``image_index``), and 1 + i % 3 boxes.
    """
    import cv2

    rng = np.random.default_rng(seed)
    for split in ("train", "val"):
        images, labels = root / "images" / split, root / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for i in range(count):
            picture = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
            cv2.imwrite(str(images / f"{i:03d}.png"), picture)
            lines = [
                f"{(i + j) % len(NAMES)} {0.25 + 0.25 * j:.3f} {0.3 + 0.2 * j:.3f} 0.20 0.30" for j in range(1 + i % 3)
            ]
            (labels / f"{i:03d}.txt").write_text("\n".join(lines) + "\n")
    yaml = root / "data.yaml"
    yaml.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [{', '.join(NAMES)}]\n")
    return yaml


class FakeRunner(Runner):
    """Returns prepared head outputs, image after image.

    Args:
        rows: For each image, rows of x1, y1, x2, y2, score, class in input pixels.
        imgsz: Input size.
        layout: Layout to return them in.
        broken: Called with the index of every inference; may raise or replace the output.
    """

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        *,
        imgsz: tuple[int, int] = (64, 64),
        layout: HeadLayout = HeadLayout.DECODED,
        broken: Callable[[int, np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.info = ModelInfo(Task.DETECT, NAMES, imgsz, end2end=layout is HeadLayout.END2END)
        self.layout = layout
        self.rows = [np.asarray(r, dtype=np.float32).reshape(-1, 6) for r in rows]
        self.broken = broken
        self.calls = 0
        self.inputs: list[np.ndarray] = []

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        index, self.calls = self.calls, self.calls + 1
        self.inputs.append(image)
        rows = self.rows[index % len(self.rows)]
        output = end2end(rows) if self.layout is HeadLayout.END2END else decoded(rows)
        return (self.broken(index, output) if self.broken else output,)


def decoded(rows: np.ndarray) -> np.ndarray:
    """Rows of detections as a (1, 4 + nc, anchors) head output, padded with silent anchors."""
    out = np.zeros((1, 4 + len(NAMES), max(8, len(rows))), dtype=np.float32)
    for k, (x1, y1, x2, y2, score, cls) in enumerate(rows):
        out[0, :4, k] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        out[0, 4 + int(cls), k] = score
    return out


def end2end(rows: np.ndarray) -> np.ndarray:
    """Rows of detections as a (1, 300, 6) end-to-end output."""
    out = np.zeros((1, 300, 6), dtype=np.float32)
    out[0, : len(rows)] = rows
    return out


def label_rows(labels: Sequence[tuple[np.ndarray, np.ndarray]], *, score: float = 0.9) -> list[np.ndarray]:
    """Detections that hit every label exactly: pairs of classes and xyxy boxes in input pixels."""
    return [
        np.concatenate([boxes, np.full((len(classes), 1), score), classes[:, None]], axis=1)
        if len(classes)
        else np.zeros((0, 6))
        for classes, boxes in labels
    ]
