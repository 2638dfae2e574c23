"""A detector that needs no training: it finds red, green and blue cells of an image. Its accuracy is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from yoloquant.types import ExportedModel, HeadLayout, ModelInfo, Task

NAMES = ("red", "green", "blue")
IMGSZ = (64, 96)
CELL = 8
INFO = ModelInfo(Task.DETECT, NAMES, IMGSZ, stride=CELL, strides=(CELL,), reg_max=1)
CELLS = (IMGSZ[0] // CELL) * (IMGSZ[1] // CELL)
ARTIFACT: Any = SimpleNamespace(
    metadata=lambda: {"model": "colours.pt", "model_sha256": "0" * 64}, stem="colours", info=INFO
)


def export_colours(path: Path, gain: float = 1.0) -> ExportedModel:
    """Write the detector as float ONNX.

    Args:
        path: The file.
        gain: Factor of the scores; 1 gives each cell the square of its mean red, green and blue.
    """
    y, x = np.meshgrid(np.arange(IMGSZ[0] // CELL), np.arange(IMGSZ[1] // CELL), indexing="ij")
    centres = np.stack([x.ravel(), y.ravel()]) * CELL + CELL / 2
    boxes = np.concatenate([centres, np.full_like(centres, CELL)])[None].astype(np.float32)
    constants = {"boxes": boxes, "shape": np.array([1, 3, CELLS]), "gain": np.array(gain, np.float32)}
    nodes = [
        helper.make_node("AveragePool", ["images"], ["pooled"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Mul", ["pooled", "pooled"], ["squared"]),  # the grey of the letterbox falls below 0.25
        helper.make_node("Mul", ["squared", "gain"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "shape"], ["scores"]),
        helper.make_node("Concat", ["boxes", "scores"], ["output0"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, *IMGSZ])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 7, CELLS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return ExportedModel("onnxruntime", path, INFO, HeadLayout.DECODED, precision="fp32")


def draw_data(folder: Path, images: int = 4) -> Path:
    """Write black images with coloured cells and their labels in YOLO layout; their data yaml.

    Colours are bright, so that the detector is right on every one of them, and sure of each.
    """
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind / "val").mkdir(parents=True)
    for index in range(images):
        image, rows = np.zeros((*IMGSZ, 3), np.uint8), []
        for cell in rng.choice(CELLS, 6, replace=False):
            row, column = divmod(int(cell), IMGSZ[1] // CELL)
            label = int(rng.integers(3))
            place = np.s_[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
            image[(*place, 2 - label)] = rng.integers(160, 256)  # OpenCV stores blue first
            centre = (column + 0.5) * CELL / IMGSZ[1], (row + 0.5) * CELL / IMGSZ[0]
            rows.append(f"{label} {centre[0]:.6f} {centre[1]:.6f} {CELL / IMGSZ[1]:.6f} {CELL / IMGSZ[0]:.6f}")
        cv2.imwrite(str(folder / "images" / "val" / f"{index}.png"), image)
        (folder / "labels" / "val" / f"{index}.txt").write_text("\n".join(rows) + "\n")
    (folder / "data.yaml").write_text(f"train: images/val\nval: images/val\nnames: {list(NAMES)}\n")
    return folder / "data.yaml"
