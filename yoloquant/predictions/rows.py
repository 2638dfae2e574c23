"""Plain data of one image, from any source, as results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..runtime.core.detections import Detections
from ..runtime.core.model_info import ModelInfo
from ..runtime.tasks import spec_of
from .prediction_set import sorted_by_confidence


def detections_of(record: Mapping[str, Any], info: ModelInfo, file: Path, image: str) -> Detections:
    """Results of one image.

    Args:
        record: ``xyxy``, ``confidence``, ``class_id`` and what the task finds besides, as ``predict`` writes them.
        info: The model that they are compared with.
        file: The file, for messages.
        image: The image, for messages.

    Raises:
        DataError: Something is missing, no number, or out of range.
    """
    try:
        boxes = np.asarray(record["xyxy"], dtype=np.float32).reshape(-1, 4)
        scores = np.asarray(record["confidence"], dtype=np.float32).reshape(-1)
        classes = np.asarray(record["class_id"], dtype=np.int64).reshape(-1)
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise DataError(
            f"predictions '{file}', image '{image}': {exc!r}; an image needs xyxy (n x 4), confidence and class_id"
        ) from exc
    if not len(boxes) == len(scores) == len(classes):
        raise DataError(
            f"predictions '{file}', image '{image}': {len(boxes)} boxes, {len(scores)} scores and {len(classes)} "
            "classes; every result has one of each"
        )
    try:
        # by the model's task: a file may lack, or hold, what another task finds
        parts = spec_of(info.task).read_record(record, len(boxes), info)
    except DataError as exc:
        raise DataError(f"predictions '{file}', image '{image}': {exc}") from exc
    return sorted_by_confidence(Detections(boxes, scores, classes, parts))


def empty(info: ModelInfo, file: Path) -> Detections:
    """Results of an image where nothing was found."""
    # with what any task may ask for, so that no image looks damaged
    nothing: dict[str, Any] = {key: [] for key in ("xyxy", "confidence", "class_id", "masks", "keypoints", "rotated")}
    return detections_of(nothing, info, file, "")
