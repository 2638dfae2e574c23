"""Scores of a model while it trains: what Ultralytics' validator measures, and fidelity to the float model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ultralytics.models.yolo.detect import DetectionValidator

from ...evaluation.evaluate import EvaluateOptions
from ...runtime.core.detections import Detections
from ...runtime.core.matching import Truth, match, size_index
from ...runtime.core.metrics import ap_table, class_scores


class CapturingValidator(DetectionValidator):  # type: ignore[misc]
    """Ultralytics' detection validator, which also keeps the detections of every image in order."""

    captured: list[Detections] | None = None

    def postprocess(self, preds: Any) -> Any:
        """Run the host's NMS and keep what it returns."""
        result = super().postprocess(preds)
        if self.captured is not None:
            self.captured.extend(_detections(r) for r in result)
        return result


def _detections(found: Any) -> Detections:
    if isinstance(found, dict):
        boxes, scores, classes = (found[k].float().cpu().numpy() for k in ("bboxes", "conf", "cls"))
    else:  # releases before 8.4
        rows = found.float().cpu().numpy()
        boxes, scores, classes = rows[:, :4], rows[:, 4], rows[:, 5]
    return Detections(boxes.copy(), scores.copy(), classes.astype(np.int64))


def fidelity(found: Sequence[Detections], reference: Sequence[Detections]) -> float:
    """mAP50-95 of detections scored against another model's confident ones.

    Args:
        found: Detections of each image.
        reference: The float model's, for the same images.

    Returns:
        0 to 1; 0 if the float model is confident of nothing.
    """
    truths = []
    for item in reference:
        sure = item.above(EvaluateOptions.reference_conf)
        truths.append(Truth(sure.xyxy, sure.class_id, size_index(sure.xyxy, 1.0)))
    matches = [match(f, t, 1.0) for f, t in zip(found, truths, strict=True)]
    scores = class_scores(list(found), matches, truths)
    if not scores:
        return 0.0
    return float(ap_table(scores, np.ones((1, len(truths)))).map50_95[0])


def confidence_shift(found: Sequence[Detections], reference: Sequence[Detections]) -> float:
    """Mean change of confidence over detections that match the float model's confident ones at IoU 0.5.

    Fidelity ranks detections, so it does not see confidences that shrink together; users' thresholds do.

    Args:
        found: Detections of each image.
        reference: The float model's, for the same images.

    Returns:
        -1 to 1; 0 if nothing matches.
    """
    changes = []
    for mine, theirs in zip(found, reference, strict=True):
        sure = theirs.above(EvaluateOptions.reference_conf)
        matches = match(mine, Truth(sure.xyxy, sure.class_id, size_index(sure.xyxy, 1.0)), 1.0)
        pairs = matches.partner >= 0
        changes.append(mine.confidence[pairs] - sure.confidence[matches.partner[pairs]])
    every = np.concatenate(changes) if changes else np.zeros(0)
    return float(every.mean(dtype=np.float64)) if len(every) else 0.0
