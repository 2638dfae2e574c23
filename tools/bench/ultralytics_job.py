"""Ultralytics' own whole job: INT8 exports of a checkpoint, each in a process of its own, and its validator on all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ["YOLO_AUTOINSTALL"] = "false"


def main(arguments: Sequence[str]) -> int:
    """Do it in the current folder.

    Args:
        arguments: The checkpoint, the data yaml, the input size, and formats with commas between them.
    """
    from ultralytics import YOLO

    checkpoint, data, imgsz, formats = arguments
    model = str(shutil.copy(checkpoint, Path(checkpoint).name))  # exports are written beside it
    files = [model]
    for name in filter(None, formats.split(",")):
        told = [model, name, data, imgsz, f"{name}.txt"]
        subprocess.run([sys.executable, "-m", "tools.bench.ultralytics_worker", *told], check=True)
        files.append(Path(f"{name}.txt").read_text(encoding="utf-8"))
    for file in files:
        YOLO(file, task=YOLO(model).task).val(data=data, imgsz=int(imgsz), device="cpu", plots=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
