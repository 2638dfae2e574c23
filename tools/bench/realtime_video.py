"""A video that pans slowly over images of a data set, so that frames differ and hold real objects."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from yoloquant.data.dataset import load_yaml, split_paths
from yoloquant.data.image_files import list_images
from yoloquant.errors import DataError, OutputError

PER_IMAGE = 5
PAN = 24
"""Pixels that an image moves while it is shown."""


def write_video(data: str, path: Path, frames: int, size: tuple[int, int], codec: str) -> int:
    """Write the video.

    Args:
        data: Data yaml; its ``val`` images are shown.
        path: Where to.
        frames: Number of frames.
        size: Width and height in pixels.
        codec: Four letters that OpenCV knows.

    Returns:
        How many images are in it.

    Raises:
        DataError: There are no images.
        OutputError: OpenCV cannot write it.
    """
    file, content = load_yaml(data)
    images = list_images(split_paths(content, file, "val"), data)[: -(-frames // PER_IMAGE)]
    if not images:
        raise DataError(f"'{data}' has no val images")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 30.0, size)
    if not writer.isOpened():
        raise OutputError(f"OpenCV cannot write '{path}' with codec {codec}; choose another codec=")
    for index in range(frames):
        image = cv2.imread(str(images[index // PER_IMAGE % len(images)]))
        if image is None:
            raise DataError(f"'{images[index // PER_IMAGE % len(images)]}' is not readable")
        writer.write(_view(image, size, index % PER_IMAGE / PER_IMAGE))
    writer.release()
    return len(images)


def _view(image: np.ndarray, size: tuple[int, int], moment: float) -> np.ndarray:
    """The image scaled to cover the size plus the pan, and cut there."""
    width, height = size[0] + PAN, size[1] + PAN
    gain = max(width / image.shape[1], height / image.shape[0])
    scaled = cv2.resize(image, (round(image.shape[1] * gain) + 1, round(image.shape[0] * gain) + 1))
    offset = round(moment * PAN)
    return np.ascontiguousarray(scaled[offset : offset + size[1], offset : offset + size[0]])
