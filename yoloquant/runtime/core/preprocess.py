"""Preparing images straight into a network's input, without allocating anything once it has seen an image's size."""

from __future__ import annotations

import numpy as np

from ..backends.base import Backend
from ..errors import DataError, TargetError
from ..tasks import spec_of
from .decode import quantize
from .letterbox import Canvas, Letterbox

KNOWN_SIZES = 16
"""Image sizes whose canvases are remembered."""


class Preprocessor:
    """Turns images into the tensor that a network takes.

    A pixel has only 256 values, so what becomes of each is looked up in a table: ``value / 255`` for float inputs, and
    quantized for integer ones. The result equals that of the arithmetic bit by bit.

    Args:
        backend: The network that takes the tensors.
        depth: Tensors that are filled in turn.
    """

    def __init__(self, backend: Backend, depth: int = 1) -> None:
        import cv2

        info = backend.info
        planar = (1, info.channels, *info.imgsz)
        if info.channels != 3 or backend.input_shape not in {planar, (1, *info.imgsz, 3)}:
            raise TargetError(
                f"the model takes an input of shape {backend.input_shape}, but images of imgsz={info.imgsz} with three "
                f"channels make {planar} or its channels-last form; export it for images with imgsz={info.imgsz}"
            )
        self._new_canvas = spec_of(info.task).canvas
        self._cv2, self._imgsz, self._channels_last = cv2, info.imgsz, backend.channels_last
        self._table = pixel_table(backend.input_dtype, backend.input_quantization)
        self._backend, self._depth = backend, depth
        self._tensors: list[np.ndarray] = []
        self._planes = [np.zeros(info.imgsz, np.uint8) for _ in range(3)]
        self._rgb = np.zeros((*info.imgsz, 3), np.uint8)
        self._canvases: dict[tuple[int, int], Canvas] = {}
        self._next = 0

    def __call__(self, image: np.ndarray, into: np.ndarray | None = None) -> tuple[np.ndarray, Letterbox]:
        """Fill a tensor, the next one if none is given, with an image; see ``Detector.preprocess``."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise DataError(
                f"an image must be BGR uint8 of shape (height, width, 3), but it is {image.dtype} of {image.shape}"
            )
        canvas = self._canvas((image.shape[0], image.shape[1]))
        canvas.fill(image)
        # In turn: the tensor of the image before may still be read by the network in another thread.
        tensor = self._turn() if into is None else into
        self._write(canvas.pixels, tensor)
        return tensor, canvas.where

    def _turn(self) -> np.ndarray:
        """The next of the tensors that are filled in turn."""
        if len(self._tensors) < self._depth:
            self._tensors.append(self._backend.new_input())
            return self._tensors[-1]
        tensor = self._tensors[self._next]
        self._next = (self._next + 1) % self._depth
        return tensor

    def _canvas(self, size: tuple[int, int]) -> Canvas:
        canvas = self._canvases.get(size)
        if canvas is None:
            # A limit: in a folder where every image has its own size, each would keep a canvas of the input's size.
            if len(self._canvases) >= KNOWN_SIZES:
                self._canvases.clear()
            canvas = self._canvases[size] = self._new_canvas(size, self._imgsz)
        return canvas

    def _write(self, pixels: np.ndarray, tensor: np.ndarray) -> None:
        # In the table's type: what OpenCV does not look up as it is, is written as bits of the same width.
        cv2, storage = self._cv2, tensor.view(self._table.dtype)[0]
        if self._channels_last:
            cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=self._rgb)
            cv2.LUT(self._rgb, self._table, dst=storage)
            return
        # Into planes that are there already: a transposed copy would be allocated for every image.
        cv2.split(pixels, self._planes)
        for channel, plane in enumerate(reversed(self._planes)):
            cv2.LUT(plane, self._table, dst=storage[channel])


def pixel_table(dtype: np.dtype, quantization: tuple[float, int] | None) -> np.ndarray:
    """What becomes of each of a pixel's 256 values, (256,), as storage that OpenCV can look up.

    Args:
        dtype: Type of the input.
        quantization: Scale and zero_point of an integer input.

    Returns:
        float32, or the bits of other types as unsigned integers of the same width.
    """
    real = np.divide(np.arange(256, dtype=np.uint8), 255.0, dtype=np.float32)
    dtype = np.dtype(dtype)
    values = real.astype(dtype) if quantization is None else quantize(real, *quantization, dtype=dtype)
    return values if dtype == np.float32 else values.view({1: np.uint8, 2: np.uint16}[dtype.itemsize])
