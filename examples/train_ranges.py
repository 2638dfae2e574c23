"""Learn quantization ranges by distillation from the float model, without labels.

Usage: python examples/train_ranges.py [FOLDER]
"""

import sys
from pathlib import Path

import yoloquant
from yoloquant.data import demo


def main(folder: Path) -> None:
    """Train for one short epoch; a real run takes a preset (fast, standard, long) and its own number of epochs."""
    mine = demo.prepare(folder)
    result = yoloquant.train(
        mine["model"],
        data=mine["data"],
        qat={"preset": "fast", "images": 16},
        epochs=1,
        fraction=0.125,
        imgsz=160,
        batch=8,
        workers=0,
        plots=False,
        project=str(folder),
        name="train",
        exist_ok=True,
    )
    print(f"held-back images: {result.score:.4f}, calibrated {result.score_calibrated:.4f}")
    print("training helped" if result.improved else "calibration was better and was kept")
    yoloquant.export(result.artifact, targets="tensorrt", output=folder / "exports", data=mine["data"])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples/train"))
