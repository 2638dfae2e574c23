"""What the NPU's simulator computed, kept: an image takes it seconds, and an evaluation may be killed.

8-bit results of the simulator are the same bit by bit in every run.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...cache import Key, Store
from ...runtime.backends import Backend
from ...runtime.backends.qnn import decode_channels_first
from ...types import ModelInfo
from ..exports import content_sha256

KIND = "npu"
_FILE = "outputs.npz"


def simulation_key(path: Path, soc_model: int) -> Key:
    """What decides the simulator's results besides the image, and the package's version, which every key holds."""
    return {"sha256": content_sha256(path), "soc_model": soc_model}


class RecalledBackend(Backend):
    """The simulator where it has to compute, and its earlier results where it has computed.

    Args:
        start: Starts the simulator. Called at once where it never took this file, so that a file it refuses is refused
            when it is opened; else with the first image that is not kept.
        store: Where results are kept.
        key: What decides them besides the image.
        info: The model.
    """

    name = "qnn"
    reuses_outputs = False

    def __init__(self, start: Callable[[], Backend], store: Store, key: Key, info: ModelInfo) -> None:
        self.info, self.layout = info, info.layout
        self.input_shape, self.input_dtype = (1, info.channels, *info.imgsz), np.dtype(np.float32)
        self.untimed = "results of Qualcomm's simulator, partly of earlier runs"
        self._start, self._store, self._key = start, store, key
        self._version = store.read(KIND, key, lambda folder: (folder / "version").read_text(encoding="utf-8"))
        self._inner: Backend | None = None
        if self._version is None:
            self._version = self._started().version
            store.write(KIND, key, lambda folder: (folder / "version").write_text(str(self._version), encoding="utf-8"))

    def run(self, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        """See ``Backend.run``."""
        key = {**self._key, "image": hashlib.sha256(tensor.tobytes()).hexdigest()}
        found = self._store.read(KIND, key, _read)
        if found is None:
            found = outputs = self._started().run(tensor)
            # on a grid of 8 bits: a tenth of the size
            self._store.write(KIND, key, lambda folder: np.savez_compressed(folder / _FILE, *outputs))
        return found

    def _started(self) -> Backend:
        self._inner = self._inner or self._start()
        return self._inner

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
        return str(self._version)


def _read(folder: Path) -> tuple[np.ndarray, ...]:
    try:
        with np.load(folder / _FILE, allow_pickle=False) as kept:
            return tuple(kept[f"arr_{index}"] for index in range(len(kept.files)))
    except zipfile.BadZipFile as exc:
        raise ValueError(str(exc)) from exc
