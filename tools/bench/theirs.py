"""Ultralytics' own INT8 exports of the same checkpoint, made once and kept, and runners for them.

They are made with Ultralytics' defaults, which calibrate on the *val* split, that is, on the images that are scored.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from yoloquant.bridge.installed import ultralytics_version
from yoloquant.runtime.core.folder_check import file_sha256
from yoloquant.runtime.core.runner import Runner
from yoloquant.types import HeadLayout, ModelInfo

ROOT = Path(__file__).resolve().parents[2]
FORMATS = {"onnxruntime": "onnx", "openvino": "openvino", "litert": "litert"}
"""Name of Ultralytics' export format by the name of our target. Its TensorRT export needs a GPU."""

TIMEOUT_S = 3600


@dataclass(frozen=True)
class TheirExport:
    """One export that Ultralytics made, or why it did not.

    Attributes:
        runtime: Name of our target for the same runtime.
        path: File or folder; None if it failed.
        error: Why it failed.
    """

    runtime: str
    path: Path | None
    error: str = ""

    @property
    def size_bytes(self) -> int:
        """Size on disk."""
        if self.path is None:
            return 0
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(f.stat().st_size for f in files if f.is_file())


def export_theirs(
    checkpoint: Path, data: Path, imgsz: int, folder: Path, runtimes: Iterable[str], *, data_sha256: str
) -> list[TheirExport]:
    """Have Ultralytics export a checkpoint to INT8.

    Args:
        checkpoint: The ``.pt`` file; a copy of it is exported.
        data: Data yaml; Ultralytics calibrates on its val split.
        imgsz: Input size in pixels.
        folder: Where exports are kept, by hash of all that they depend on.
        runtimes: Names of our targets; those without a counterpart are left out.
        data_sha256: Hash of the images and labels.

    Returns:
        One result per counterpart; failures are described, not raised.
    """
    facts = f"{file_sha256(checkpoint)} {data_sha256} {imgsz} {ultralytics_version()}"
    home = folder / hashlib.sha256(facts.encode()).hexdigest()[:12]
    home = home.resolve()  # the exports run in folders of their own
    return [_export_one(checkpoint, data, imgsz, home / r, r) for r in runtimes if r in FORMATS]


def _export_one(checkpoint: Path, data: Path, imgsz: int, home: Path, runtime: str) -> TheirExport:
    result = home / "result.txt"
    if result.is_file() and Path(result.read_text(encoding="utf-8")).exists():
        return TheirExport(runtime, Path(result.read_text(encoding="utf-8")))
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    copy = home / checkpoint.name
    shutil.copyfile(checkpoint, copy)
    arguments = [str(copy), FORMATS[runtime], str(data.resolve()), str(imgsz), str(result)]
    environment = {**os.environ, "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "true", "PYTHONPATH": str(ROOT)}
    log = home / "export.log"
    with log.open("w", encoding="utf-8") as stream:
        try:
            code = subprocess.run(
                [sys.executable, "-m", "tools.bench.ultralytics_worker", *arguments],
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return TheirExport(runtime, None, f"not finished after {TIMEOUT_S} s; see {log}")
    if code or not result.is_file():
        lines = [
            line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
        return TheirExport(runtime, None, f"{lines[-1] if lines else f'exit code {code}'}; see {log}")
    return TheirExport(runtime, Path(result.read_text(encoding="utf-8")))


def load_theirs(export: TheirExport, info: ModelInfo, threads: int) -> Runner:
    """Load an export into the same runner that ours use, so that times compare files and not Python code.

    Its files take float32 NCHW images of 0 to 1 like ours. LiteRT files return boxes as fractions of the image, which
    the LiteRT runner's ``decode`` turns into pixels, as Ultralytics' own backend does. Whether the result is what
    Ultralytics makes of the file is checked by ``agreement``.

    Args:
        export: A successful export.
        info: The model's description; whether the head selects is read off the file.
        threads: Threads of an inference.

    Raises:
        TargetError: The runtime refuses the file, or its output is no detection head's.
    """
    assert export.path is not None
    runner = _runner(export.runtime, export.path, info, threads)
    height, width = info.imgsz
    shape = runner.infer(np.zeros((1, info.channels, height, width), np.float32))[0].shape
    # Ultralytics drops the selecting head in some formats, LiteRT INT8 among them.
    end2end = len(shape) == 3 and shape[2] == 6 and shape[1] != 4 + len(info.names)
    runner.info = replace(info, end2end=end2end)
    runner.layout = HeadLayout.END2END if end2end else HeadLayout.DECODED
    return runner


def _runner(runtime: str, path: Path, info: ModelInfo, threads: int) -> Runner:
    from yoloquant.runtime.backends import BackendOptions, open_backend

    return open_backend(
        runtime,
        path,
        info,
        BackendOptions(threads, exact_sums=False),  # as Ultralytics opens them
    )
