"""What the NPU's simulator computed, kept beside the file: an image takes it seconds, and an evaluation may be killed.

Results are found again by the hash of the file, the chip, the package's version and the image, so that nothing of
another model, chip or release is ever taken; 8-bit results of the simulator are the same bit by bit in every run.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

from ...errors import OutputError
from ...io import atomic_path
from ...runtime.backends import Backend
from ...runtime.backends.qnn import decode_channels_first
from ...types import ModelInfo
from ..exports import content_sha256

FOLDER = ".simulated"
"""Beside the artifacts; it may be deleted at any time."""
PACKAGE = "onnxruntime-qnn"
logger = logging.getLogger(__name__)


def results_folder(path: Path, soc_model: int) -> Path | None:
    """Where results of a file on a chip are kept; None where the package does not tell its version."""
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return None
    return path.parent / FOLDER / f"{content_sha256(path)[:16]}-{soc_model}-{version}"


class RecalledBackend(Backend):
    """The simulator where it has to compute, and its earlier results where it has computed.

    Args:
        start: Starts the simulator. Called at once where nothing is kept, so that a file it refuses is refused when it
            is opened; else with the first image that is not kept.
        folder: Where results are kept.
        info: The model.
    """

    name = "qnn"
    reuses_outputs = False

    def __init__(self, start: Callable[[], Backend], folder: Path, info: ModelInfo) -> None:
        self.info, self.layout = info, info.layout
        self.input_shape, self.input_dtype = (1, info.channels, *info.imgsz), np.dtype(np.float32)
        self.untimed = "results of Qualcomm's simulator, partly of earlier runs"
        self._start, self._folder = start, folder
        self._inner = None if any(folder.glob("*.npz")) else start()
        self._writes = True

    def run(self, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        """See ``Backend.run``."""
        path = self._folder / f"{hashlib.sha256(tensor.tobytes()).hexdigest()[:32]}.npz"
        found = _read(path)
        if found is None:
            self._inner = self._inner or self._start()
            found = self._inner.run(tensor)
            self._keep(path, found)
        return found

    def _keep(self, path: Path, outputs: tuple[np.ndarray, ...]) -> None:
        if not self._writes:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                # on a grid of 8 bits: a tenth of the size
                np.savez_compressed(temporary, *outputs)
        except (OSError, OutputError) as exc:  # a folder that is read-only costs time and no result
            self._writes = False
            logger.warning("the simulator's results are not kept: %s", exc)

    def decode(self, outputs: tuple[np.ndarray, ...], conf: float = 0.0) -> tuple[np.ndarray, ...]:
        """See ``QnnBackend.decode``; this target's heads are raw."""
        return decode_channels_first(outputs, self.info, conf)

    def close(self) -> None:
        """End the simulator."""
        if self._inner is not None:
            self._inner.close()

    @property
    def version(self) -> str:
        """Version of Qualcomm's package."""
        return metadata.version(PACKAGE)


def _read(path: Path) -> tuple[np.ndarray, ...] | None:
    """Kept results; None if there are none, or a file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return tuple(kept[f"arr_{index}"] for index in range(len(kept.files)))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
