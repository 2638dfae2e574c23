"""Letterboxing exactly as Ultralytics' validator does it with ``rect=False``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

PAD_VALUE = 114


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies inside the network's input.

    Attributes:
        original: Height and width of the image, in pixels.
        resized: Height and width after resizing, in whole pixels.
        extent: The same before rounding, which is what box coordinates follow.
        left: Columns of padding before the image.
        top: Rows of padding above the image.
        imgsz: Height and width of the input.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    extent: tuple[float, float]
    left: int
    top: int
    imgsz: tuple[int, int]

    @property
    def area_scale(self) -> float:
        """Factor from areas in input pixels to areas in original pixels."""
        # By the extent before rounding, which boxes follow: by whole pixels an object at a border of COCO's sizes
        # flips.
        return (self.original[0] * self.original[1]) / (self.extent[0] * self.extent[1])

    def to_input(self, boxes: np.ndarray) -> np.ndarray:
        """Map normalised xywh labels (n, 4) to xyxy in input pixels."""
        height, width = self.extent
        scale = np.array([width, height, width, height], dtype=np.float32)
        # float32 step by step, as Ultralytics keeps labels: matches at a threshold depend on the last bit.
        xywh = boxes.astype(np.float32) * scale
        half = xywh[:, 2:] / 2
        corners = np.concatenate([xywh[:, :2] - half, xywh[:, :2] + half], axis=1)
        return np.asarray(corners + np.array([self.left, self.top] * 2, dtype=np.float32), dtype=np.float32)

    def boxes_to_input(self, boxes: np.ndarray) -> np.ndarray:
        """Map xyxy in original pixels (n, 4) to input pixels: the inverse of ``to_original`` inside the image."""
        (height, width), (new_height, new_width) = self.original, self.extent
        scale = np.array([new_width / width, new_height / height] * 2, dtype=np.float32)
        return np.asarray(boxes * scale + np.array([self.left, self.top] * 2, dtype=np.float32), dtype=np.float32)

    def points_to_input(self, points: np.ndarray) -> np.ndarray:
        """Map normalised x, y (..., 2) to input pixels."""
        height, width = self.extent
        moved = points.astype(np.float32) * np.array([width, height], np.float32)
        return np.asarray(moved + np.array([self.left, self.top], np.float32), dtype=np.float32)

    def points_to_original(self, points: np.ndarray) -> np.ndarray:
        """Map x, y (..., 2) in input pixels to original pixels; points outside the image stay there."""
        (height, width), (new_height, new_width) = self.original, self.extent
        moved = points - np.array([self.left, self.top], np.float32)
        return np.asarray(moved * np.array([width / new_width, height / new_height], np.float32), dtype=np.float32)

    def to_original(self, boxes: np.ndarray) -> np.ndarray:
        """Map xyxy in input pixels (n, 4) to xyxy in original pixels, clipped to the image."""
        (height, width), (new_height, new_width) = self.original, self.extent
        out = boxes - np.array([self.left, self.top] * 2, dtype=np.float32)
        out = out * np.array([width / new_width, height / new_height] * 2, dtype=np.float32)
        # Clipped as Ultralytics' `clip_boxes`: sides of a box may lie in the padding.
        return np.asarray(np.clip(out, 0, np.array([width, height] * 2, dtype=np.float32)))


def place(original: tuple[int, int], imgsz: tuple[int, int]) -> Letterbox:
    """Compute the letterbox of an image.

    The host first brings the long side to ``max(imgsz)`` (rounding up), then shrinks what still does not fit; the
    second step only acts when the input is not square.

    Args:
        original: Height and width of the image.
        imgsz: Height and width of the network's input.
    """
    long_side = max(imgsz)
    gain = long_side / max(original)
    height, width = (
        (original[0], original[1]) if gain == 1 else tuple(min(math.ceil(side * gain), long_side) for side in original)
    )
    # Never above 1, since the host's validator letterboxes with `scaleup=False`.
    shrink = min(imgsz[0] / height, imgsz[1] / width, 1.0)
    extent = height * shrink, width * shrink
    # At least one pixel, as in the host: images of extreme proportions would vanish.
    height, width = max(round(extent[0]), 1), max(round(extent[1]), 1)
    # The 0.1 is the host's (`LetterBox`): an odd line of padding goes below and to the right.
    top = round((imgsz[0] - height) / 2 - 0.1)
    left = round((imgsz[1] - width) / 2 - 0.1)
    return Letterbox(original, (height, width), extent, left, top, imgsz)


class Canvas:
    """The padded input for images of one size; filling it allocates nothing.

    Args:
        size: Height and width of the images.
        imgsz: Height and width of the network's input.

    Attributes:
        where: Where an image lies in it.
        pixels: BGR uint8 (imgsz, 3), the border grey.
    """

    def __init__(self, size: tuple[int, int], imgsz: tuple[int, int]) -> None:
        import cv2

        self.where = place(size, imgsz)
        self.pixels = np.full((*imgsz, 3), PAD_VALUE, dtype=np.uint8)
        (height, width), top, left = self.where.resized, self.where.top, self.where.left
        # A view: resizing writes straight into the middle, and the border stays grey from image to image.
        self._inside = self.pixels[top : top + height, left : left + width]
        first = place(size, (max(imgsz), max(imgsz))).resized
        # Two resizings round twice; in one step a non-square input would get other pixels than the host's.
        self._between = None if first in {size, self.where.resized} else np.zeros((*first, 3), np.uint8)
        self._cv2 = cv2

    def fill(self, image: np.ndarray) -> None:
        """Resize an image into it, in two steps for a non-square input as the host does."""
        resize, linear = self._cv2.resize, self._cv2.INTER_LINEAR
        if self._between is not None:
            image = resize(image, self._between.shape[1::-1], dst=self._between, interpolation=linear)
        if image.shape[:2] == self.where.resized:
            np.copyto(self._inside, image)
        else:
            resize(image, self.where.resized[::-1], dst=self._inside, interpolation=linear)


def letterbox(image: np.ndarray, imgsz: tuple[int, int]) -> tuple[np.ndarray, Letterbox]:
    """Resize and pad one image.

    Args:
        image: BGR uint8 (height, width, 3).
        imgsz: Height and width of the network's input.

    Returns:
        float32 (1, 3, height, width), RGB, 0 to 1; and where the image lies in it.
    """
    canvas = Canvas((image.shape[0], image.shape[1]), imgsz)
    canvas.fill(image)
    return to_tensor(canvas.pixels), canvas.where


def to_tensor(pixels: np.ndarray) -> np.ndarray:
    """A network's float input, (1, 3, height, width) RGB 0 to 1, from its pixels, (height, width, 3) BGR."""
    # Before the division, which then reads memory in order.
    chw = np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1))
    return np.asarray(np.divide(chw[None], 255.0, dtype=np.float32))
