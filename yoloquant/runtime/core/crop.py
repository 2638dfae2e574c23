"""Resizing and centre cropping of classifiers' images, with the pixels of torchvision's ``Resize`` and ``CenterCrop``.

Ultralytics resizes Pillow images, and Pillow averages over everything that a smaller pixel covers, which OpenCV's
linear resizing does not: on photos shrunk to half their size the two are far apart. So Pillow's arithmetic is
repeated here: a triangle as wide as the reduction, weights in fixed point with 22 bits, first along the rows and then
along the columns, each rounded to a byte. Pillow 13 takes images more than twice as high as wide the other way round;
earlier releases may differ from that by one step of 255.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .letterbox import Letterbox

PRECISION = 22
"""Bits behind the point of Pillow's weights: 32, less 8 of a pixel and 2 of head room."""


def place_crop(original: tuple[int, int], imgsz: tuple[int, int]) -> Letterbox:
    """Where an image lies around the square that is cut out of it.

    A square input takes the short side at its size and keeps the proportions; any other one takes the image stretched
    to exactly that size, as Ultralytics does.

    Args:
        original: Height and width of the image.
        imgsz: Height and width of the input.

    Returns:
        The place; ``left`` and ``top`` are negative where something is cut off.
    """
    # torchvision's Resize takes a pair of sides as they are, and a single one for the short side.
    if imgsz[0] != imgsz[1]:
        return Letterbox(original, imgsz, (float(imgsz[0]), float(imgsz[1])), 0, 0, imgsz)
    short, long = min(original), max(original)
    side = imgsz[0]
    # Cut off and not rounded, as torchvision's `_compute_resized_output_size`; `round` below is its CenterCrop's.
    longer = int(side * long / short)
    resized = (side, longer) if original[0] <= original[1] else (longer, side)
    top, left = (round((size - side) / 2.0) for size in resized)
    return Letterbox(original, resized, (float(resized[0]), float(resized[1])), -left, -top, imgsz)


class CropCanvas:
    """The input for images of one size; see ``letterbox.Canvas``.

    Args:
        size: Height and width of the images.
        imgsz: Height and width of the network's input.

    Attributes:
        where: Where an image lies around it.
        pixels: BGR uint8 (imgsz, 3).
    """

    def __init__(self, size: tuple[int, int], imgsz: tuple[int, int]) -> None:
        self.where = place_crop(size, imgsz)
        self.pixels = np.zeros((*imgsz, 3), dtype=np.uint8)
        (height, width), top, left = self.where.resized, -self.where.top, -self.where.left
        self._rows = _weights(size[0], height, top, top + imgsz[0])
        self._columns = _weights(size[1], width, left, left + imgsz[1])

    def fill(self, image: np.ndarray) -> None:
        """Resize an image and cut the middle out of it."""
        # Columns after rows: each pass rounds to bytes, so the order shows in the pixels.
        if image.shape[0] > 2 * image.shape[1]:
            self.pixels[...] = self._columns.along(self._rows.along(image, 0), 1)
            return
        # Only the lines that any output line is made from: a crop leaves the rest of a long image aside.
        first, last = self._rows.first, self._rows.last
        self.pixels[...] = self._rows.along(self._columns.along(image[first:last], 1), 0, first)


class _Weights:
    """How each of some output lines is made from the input's.

    Args:
        index: Input line of each weight, (outputs, taps).
        weight: Its share in fixed point, int32 (outputs, taps); 0 beyond the last.
    """

    def __init__(self, index: np.ndarray, weight: np.ndarray, plain: bool) -> None:
        self._index, self._weight, self._plain = index, weight, plain
        self.first, self.last = int(index.min()), int(index.max()) + 1

    def along(self, image: np.ndarray, axis: int, start: int = 0) -> np.ndarray:
        """Combine lines of an image along an axis, whose first line is the input's line ``start``."""
        index = self._index - start
        if self._plain:
            return np.asarray(np.take(image, index[:, 0], axis=axis))
        shape = [1, 1, 1]
        shape[axis] = -1
        # Half of the last bit first, so that the shift rounds instead of cutting off.
        total = np.full((), 1 << (PRECISION - 1), np.int32)
        for tap in range(index.shape[1]):
            lines = np.take(image, index[:, tap], axis=axis).astype(np.int32)
            total = total + lines * self._weight[:, tap].reshape(shape)
        return np.asarray(np.clip(total >> PRECISION, 0, 255), dtype=np.uint8)


@lru_cache(maxsize=64)
def _weights(size: int, resized: int, start: int, end: int) -> _Weights:
    """Weights of the output lines from ``start`` to ``end`` when ``size`` lines become ``resized`` ones."""
    if size == resized:
        lines = np.arange(start, end)[:, None]
        return _Weights(lines, np.ones_like(lines), plain=True)
    scale = size / resized
    # Enlarged images get plain linear interpolation: a triangle narrower than a pixel would miss its neighbours.
    reach = max(scale, 1.0)
    rows = [_one(line, size, scale, reach) for line in range(start, end)]
    taps = max(len(weights) for _, weights in rows)
    index, weight = np.zeros((len(rows), taps), np.int64), np.zeros((len(rows), taps), np.int32)
    for row, (low, weights) in enumerate(rows):
        # Rows at the border have fewer taps; the rest gets weight 0 and any index inside.
        index[row] = np.minimum(low + np.arange(taps), size - 1)
        weight[row, : len(weights)] = weights
    return _Weights(index, weight, plain=False)


def _one(line: int, size: int, scale: float, reach: float) -> tuple[int, list[int]]:
    """First input line and fixed-point weights of one output line."""
    centre = (line + 0.5) * scale
    low, high = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), size)
    inverse = 1.0 / reach
    values = [max(1.0 - abs((x + low - centre + 0.5) * inverse), 0.0) for x in range(high - low)]
    total = sum(values)
    shares = [value / total if total else value for value in values]
    return low, [int(0.5 + share * (1 << PRECISION)) for share in shares]
