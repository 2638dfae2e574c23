"""From a network's outputs to detections, the same way for every artifact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import TargetError, UsageError
from .model_info import HeadLayout
from .nms import non_max_suppression


@dataclass(frozen=True)
class Detections:
    """Detections of one model on one image, by falling confidence; the fields are called as in ``supervision``.

    Attributes:
        xyxy: float32 (n, 4), left, top, right, bottom in input pixels, or in pixels of the image where it says so.
        confidence: float32 (n,).
        class_id: int64 (n,).
    """

    xyxy: np.ndarray
    confidence: np.ndarray
    class_id: np.ndarray

    def __len__(self) -> int:
        return len(self.confidence)

    def above(self, confidence: float) -> Detections:
        """The detections with a higher confidence."""
        keep = self.confidence > confidence
        return Detections(self.xyxy[keep], self.confidence[keep], self.class_id[keep])


@dataclass(frozen=True)
class Selection:
    """How detections are selected; the defaults are those of Ultralytics' validator.

    Attributes:
        conf: Lowest score.
        iou: Overlap above which NMS drops the weaker box of a class.
        max_det: Detections per image.
        multi_label: Whether a box may be found once for each class, as in validation, or only for its best one.

    Raises:
        UsageError: A value is out of range.
    """

    conf: float = 0.001
    iou: float = 0.7
    max_det: int = 300
    multi_label: bool = True

    def __post_init__(self) -> None:
        for name, value in (("conf", self.conf), ("iou", self.iou)):
            if not 0 <= value <= 1:
                raise UsageError(f"{name}={value} is out of range; give a value from 0 to 1")
        if self.max_det < 1:
            raise UsageError(f"max_det={self.max_det} is out of range; give at least 1")


PREDICT = Selection(conf=0.25, multi_label=False)
"""The defaults of Ultralytics' ``predict``."""


def select(outputs: tuple[np.ndarray, ...], layout: HeadLayout, classes: int, selection: Selection) -> Detections:
    """Turn drop-in outputs into detections.

    Args:
        outputs: What ``decode`` of a backend or runner returned; the first array counts.
        layout: DECODED or END2END.
        classes: Number of classes of the model.
        selection: Thresholds.

    Raises:
        TargetError: The output has another shape, or holds NaN or infinity.
    """
    array = _checked(outputs, layout, classes)
    if layout is HeadLayout.END2END:
        rows = array[0]
        rows = rows[rows[:, 4] > selection.conf][: selection.max_det].astype(np.float32)
        rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    else:
        array = np.asarray(array, dtype=np.float32)
        s = selection
        rows = non_max_suppression(array, s.conf, s.iou, s.max_det, multi_label=s.multi_label)
    return Detections(rows[:, :4].copy(), rows[:, 4].copy(), rows[:, 5].astype(np.int64))


def _checked(outputs: tuple[np.ndarray, ...], layout: HeadLayout, classes: int) -> np.ndarray:
    if layout is HeadLayout.RAW:
        raise TargetError("the runner returned a raw head; its decode() must turn it into the drop-in layout")
    array: np.ndarray = np.asarray(outputs[0]) if outputs else np.zeros((0, 0, 0))
    wanted = "(1, max_det, 6)" if layout is HeadLayout.END2END else f"(1, {4 + classes}, anchors)"
    fits = array.ndim == 3 and array.shape[0] == 1
    fits = fits and (array.shape[2] == 6 if layout is HeadLayout.END2END else array.shape[1] == 4 + classes)
    if not fits:
        raise TargetError(
            f"the runner returned an output of shape {array.shape}, but {layout.value} needs {wanted}; "
            "was it exported with another task or number of classes?"
        )
    if not np.isfinite(array.sum()):
        raise TargetError("the runner returned NaN or infinite outputs; the artifact is numerically broken")
    return array
