"""Whether boxes of predictions are in the pixels of the original images, and what they look like if not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import DataError

SLACK = 0.02
"""How far beyond the image, as a share of its longer side, boxes may reach: NMS does not clip them."""
SHARE = 0.02
"""Share of boxes beyond that which says that they are in other coordinates."""
FRACTIONS = 2.0
"""Coordinates that are no pixels: fractions may reach beyond the image a little, and no image is two pixels wide."""
LOOKED_AT = 200
"""Images whose sizes boxes are held against."""


def check_numbers(boxes: np.ndarray, scores: np.ndarray, file: Path) -> None:
    """Refuse boxes xyxy (n, 4) and scores (n,) that are not finite or out of range.

    Raises:
        DataError: They are; or all boxes are fractions of the image.
    """
    if not len(boxes):
        return
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise DataError(f"predictions '{file}' hold NaN or infinite numbers; the model that made them is broken")
    if scores.min() < 0 or scores.max() > 1:
        worst = scores[np.argmax(np.abs(scores - 0.5))]
        raise DataError(
            f"predictions '{file}' hold a score of {worst:g}; scores are probabilities from 0 to 1: apply the sigmoid, "
            "or divide percent by 100"
        )
    if np.abs(boxes).max() <= FRACTIONS:
        raise DataError(
            f"boxes of predictions '{file}' look normalised (none reaches beyond {np.abs(boxes).max():.3g}); multiply "
            "x by the image's width and y by its height: boxes are in pixels of the original image"
        )


def check_places(
    boxes: Mapping[int, np.ndarray], sizes: Mapping[int, tuple[int, int]], imgsz: tuple[int, int], file: Path
) -> None:
    """Refuse boxes that do not lie in their images.

    Args:
        boxes: float32 (n, 4), xyxy, by image.
        sizes: Height and width of some of these images, in pixels.
        imgsz: Height and width of the model's input.
        file: Where they come from, for the message.

    Raises:
        DataError: Too many lie outside; the message says what they look like.
    """
    outside, total, first = 0, 0, -1
    wrong, upright = 0, 0
    as_size, as_input = True, True
    for index, (height, width) in sizes.items():
        found = boxes.get(index)
        if found is None or not len(found):
            continue
        # a pixel more, for those who round up
        reach = SLACK * max(height, width) + 1
        limit = np.array([width, height] * 2) + reach
        beyond = ((found > limit) | (found < -reach)).any(axis=1)
        outside, total = outside + int(beyond.sum()), total + len(found)
        first = index if first < 0 and beyond.any() else first
        wrong += int((found[:, 2:] < found[:, :2]).any(axis=1).sum())
        # x, y, width, height were turned into corners by the reader; taken back, they are what the file says
        corners = np.concatenate([found[:, :2], found[:, 2:] - found[:, :2]], axis=1)
        upright += int((corners[:, 2:] >= corners[:, :2]).all(axis=1).sum())
        as_size &= bool((corners <= limit).all())
        as_input &= bool((found <= np.array([imgsz[1], imgsz[0]] * 2) * (1 + SLACK) + 1).all())
    # before places: of such boxes nothing else can be said
    if wrong > SHARE * total:
        raise DataError(f"{wrong} of {total} boxes of predictions '{file}' have a negative width or height")
    # a few are a detector's own: NMS clips nothing
    if outside <= SHARE * total:
        return
    likely = "they are in other coordinates, or about other images"
    # as corners they would all fit, and right would lie right of left: no chance for real widths and heights
    if as_size and upright > 0.98 * total:
        likely = "they look like x1, y1, x2, y2 where COCO has x, y, width, height"
    elif as_input:
        likely = f"they look like pixels of the network's input ({imgsz[1]} x {imgsz[0]}): undo the letterbox"
    raise DataError(
        f"{outside} of {total} boxes of predictions '{file}' lie outside their images (the first on image {first + 1} "
        f"of the data); {likely}; boxes must be in pixels of the original image"
    )
