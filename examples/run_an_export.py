"""Run any export on a picture and read its boxes as NumPy arrays.

Usage: python examples/run_an_export.py [FOLDER]
"""

import sys
from pathlib import Path

import yoloquant
from yoloquant.data import demo


def main(folder: Path) -> None:
    """Export the embedded model for OpenVINO and detect; bundles and single artifacts load in the same way."""
    mine = demo.prepare(folder)
    artifact = yoloquant.quantize(mine["model"], data=mine["data"], imgsz=mine["imgsz"], images=32)
    exports = yoloquant.export(artifact, targets="openvino", output=folder / "exports")
    model = yoloquant.load(exports.exports[0])
    picture = min(Path(mine["data"]).parent.glob("images/val/*.png"))
    found = model(picture)
    for box, confidence, class_id in zip(found.xyxy, found.confidence, found.class_id, strict=True):
        print(f"{artifact.info.names[int(class_id)]} {confidence:.2f} at {box.round().tolist()}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples/run"))
