"""Quantize a trained checkpoint, export it, and run the file with plain Ultralytics.

Usage: python examples/quantize_and_export.py [FOLDER]
"""

import sys
from pathlib import Path

from ultralytics import YOLO

import yoloquant
from yoloquant.data import demo


def main(folder: Path) -> None:
    """Quantize and export the embedded model; put your own checkpoint and data yaml in its place."""
    mine = demo.prepare(folder)
    artifact = yoloquant.quantize(mine["model"], data=mine["data"], imgsz=mine["imgsz"], images=32)
    artifact.save(folder / "demo_int8.pt")  # an ordinary checkpoint, with the ranges beside the weights
    exports = yoloquant.export(artifact, targets="onnxruntime", output=folder / "exports")

    picture = min(Path(mine["data"]).parent.glob("images/val/*.png"))
    model = YOLO(exports.exports[0].path, task="detect")  # a drop-in: nothing of yoloquant is needed from here on
    for result in model.predict(picture, imgsz=mine["imgsz"], verbose=False):
        print(f"{len(result.boxes)} objects in {picture.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples/export"))
