"""Activations of 16 bits, computed pair by pair by ONNX Runtime on the CPU.

The NPU's simulator in onnxruntime-qnn 2.7.0 cannot be asked: its 16-bit products give other results for the same image
from run to run (a tile of a SiLU's product, in one of two runs of yolo11n), while its 8-bit results are the same bit by
bit. With 65536 steps the order of sums hardly matters, and the pairs alone say what is lost.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ...runtime.backends import BackendOptions
from ...runtime.backends.onnxruntime import OnnxRuntimeBackend
from ...runtime.backends.qnn import decode_channels_first
from ...types import ModelInfo


class PairwiseBackend(OnnxRuntimeBackend):
    """A Q/DQ ``.onnx`` with raw heads, computed as it stands.

    Args:
        path: The file.
        info: The model that it holds.
        options: How it is run: ``threads``.
    """

    def __init__(self, path: Path, info: ModelInfo, options: BackendOptions) -> None:
        super().__init__(path, info, replace(options, optimize=False, device=""))

    def decode(self, outputs: tuple[np.ndarray, ...], conf: float = 0.0) -> tuple[np.ndarray, ...]:
        """See ``QnnBackend.decode``."""
        return decode_channels_first(outputs, self.info, conf)
