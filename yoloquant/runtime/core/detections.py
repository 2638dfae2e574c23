"""What a model found in one image, and how detections are selected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import UsageError


@dataclass(frozen=True)
class Detections:
    """Detections of one model on one image, by falling confidence; the fields are called as in ``supervision``.

    Attributes:
        xyxy: float32 (n, 4), left, top, right, bottom in input pixels, or in pixels of the image where it says so.
        confidence: float32 (n,).
        class_id: int64 (n,).
        parts: What a task predicts besides, each with n rows: masks, keypoints, rotated boxes; see the task's file.
    """

    xyxy: np.ndarray
    confidence: np.ndarray
    class_id: np.ndarray
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.confidence)

    def take(self, chosen: np.ndarray | slice) -> Detections:
        """The chosen detections, given by index, slice or mask."""
        parts = {name: values[chosen] for name, values in self.parts.items()}
        return Detections(self.xyxy[chosen], self.confidence[chosen], self.class_id[chosen], parts)

    def above(self, confidence: float) -> Detections:
        """The detections with a higher confidence."""
        return self.take(self.confidence > confidence)

    def with_parts(self, **parts: np.ndarray) -> Detections:
        """The same boxes, scores and classes with other parts."""
        return replace(self, parts=parts)


@dataclass(frozen=True)
class Selection:
    """How detections are selected; the defaults are those of Ultralytics' validator.

    Attributes:
        conf: Lowest score.
        iou: Overlap above which NMS drops the weaker box of a class.
        max_det: Detections per image.
        multi_label: Whether a box may be found once for each class, as in validation, or only for its best one.
        class_conf: Lowest score of each class, none of them below ``conf``; None if all have the same.

    Raises:
        UsageError: A value is out of range.
    """

    conf: float = 0.001
    iou: float = 0.7
    max_det: int = 300
    multi_label: bool = True
    class_conf: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        # Said here, since a threshold beyond 1 would only give empty results.
        for name, value in (("conf", self.conf), ("iou", self.iou)):
            if not 0 <= value <= 1:
                raise UsageError(f"{name}={value} is out of range; give a value from 0 to 1")
        if self.max_det < 1:
            raise UsageError(f"max_det={self.max_det} is out of range; give at least 1")


PREDICT = Selection(conf=0.25, multi_label=False)
"""The defaults of Ultralytics' ``predict``."""
