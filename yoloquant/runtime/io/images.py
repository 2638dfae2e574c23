"""Reading an image file on a device, whatever characters its path has."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..errors import DataError


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Decode an image: BGR uint8 (height, width, 3).

    Raises:
        DataError: It cannot be read or decoded.
    """
    import cv2

    place = os.fspath(path)
    try:
        content = np.fromfile(place, dtype=np.uint8)  # OpenCV's own reading fails on some characters in paths
    except OSError as exc:
        raise DataError(f"image {place} cannot be read: {exc}") from exc
    try:
        # an empty file would be an error of OpenCV's own
        image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except cv2.error:  # for instance of more pixels than OpenCV takes
        image = None
    if image is None:
        raise DataError(f"image {place} cannot be decoded; replace or remove it")
    return np.asarray(image)


def decode_image(path: Path) -> np.ndarray | None:
    """The same; None for what is no readable image."""
    try:
        return read_image(path)
    except DataError:
        return None
