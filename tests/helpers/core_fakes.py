"""A backend that computes nothing, with any input."""

from __future__ import annotations

import numpy as np

from yoloquant.runtime.backends.base import Backend
from yoloquant.runtime.core.model_info import ModelInfo, Task

NAMES = ("cat", "dog", "bird")


class FakeBackend(Backend):
    """Returns a prepared head output and keeps what it was given.

    Args:
        imgsz: Input size.
        dtype: Input type.
        quantization: Scale and zero_point of an integer input.
        channels_last: Whether the input is (1, height, width, 3).
        output: What ``run`` returns.
    """

    name = "fake"

    def __init__(
        self,
        imgsz: tuple[int, int] = (64, 64),
        dtype: str = "float32",
        *,
        quantization: tuple[float, int] | None = None,
        channels_last: bool = False,
        output: np.ndarray | None = None,
    ) -> None:
        self.info = ModelInfo(Task.DETECT, NAMES, imgsz)
        self.layout = self.info.layout
        self.input_shape = (1, *imgsz, 3) if channels_last else (1, 3, *imgsz)
        self.input_dtype, self.input_quantization = np.dtype(dtype), quantization
        self.output = np.zeros((1, 7, 8), np.float32) if output is None else output
        self.closed = False

    def run(self, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        assert tensor.shape == self.input_shape and tensor.dtype == self.input_dtype
        return (self.output,)

    def close(self) -> None:
        self.closed = True

    @property
    def version(self) -> str:
        return "1"
