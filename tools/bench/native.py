"""Ultralytics' native QAT and its ONNX export, in a process of its own; needs nvidia-modelopt.

python -m tools.bench.native <checkpoint> <data yaml> <result file> <json of training arguments>
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .theirs import ROOT, TIMEOUT_S, TheirExport

os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine


def native_export(checkpoint: Path, data: str, folder: Path, arguments: dict[str, Any]) -> TheirExport:
    """Train with Ultralytics' own QAT and export the result; a finished one is used again.

    Args:
        checkpoint: The float checkpoint.
        data: Data yaml.
        folder: Where it works.
        arguments: ``imgsz``, ``batch``, ``epochs`` ...

    Returns:
        The ONNX file with its Q/DQ pairs, or why there is none.
    """
    if importlib.util.find_spec("modelopt") is None:
        return TheirExport("onnxruntime", None, "nvidia-modelopt is not installed")
    folder = folder.resolve()
    result, mark = folder / "result.txt", folder / "arguments.json"
    if result.is_file() and mark.is_file() and json.loads(mark.read_text()) == arguments:
        return TheirExport("onnxruntime", Path(result.read_text(encoding="utf-8")))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = folder / "train.log"
    command = [str(Path(checkpoint).resolve()), str(Path(data).resolve()), str(result), json.dumps(arguments)]
    with log.open("w", encoding="utf-8") as stream:
        code = subprocess.run(
            [sys.executable, "-m", "tools.bench.native", *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=stream,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            check=False,
        ).returncode
    if code or not result.is_file():
        return TheirExport("onnxruntime", None, f"exit code {code}; see {log}")
    mark.write_text(json.dumps(arguments))
    return TheirExport("onnxruntime", Path(result.read_text(encoding="utf-8")))


def main(checkpoint: str, data: str, result: str, arguments: str) -> int:
    """Train and export, with every other setting left as Ultralytics has it."""
    from ultralytics import YOLO

    model = YOLO(checkpoint)
    model.train(
        data=data, quantize=8, device="cpu", project=str(Path.cwd()), name="run", plots=False, **json.loads(arguments)
    )
    size = json.loads(arguments)["imgsz"]
    path = YOLO(str(Path.cwd() / "run" / "weights" / "best.pt")).export(format="onnx", imgsz=size, device="cpu")
    Path(result).write_text(str(Path(path).resolve()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
