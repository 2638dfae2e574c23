"""Scores of a model while it trains: what Ultralytics' validator measures, and agreement with the float model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...evaluation.evaluate import EvaluateOptions
from ...runtime.core.detections import Detections
from ...runtime.core.letterbox import Letterbox
from ...runtime.core.matching import Matches, Truth
from ...runtime.tasks import TaskSpec
from ...runtime.tasks.obb import upright
from ...runtime.tasks.segment import RATIO

_COLUMNS = 6  # x1, y1, x2, y2, confidence, class


class Capture:
    """Keeps the results of every image that a validator of Ultralytics scores, in order.

    It stands in place of the validator's ``postprocess``, as an attribute of the instance.

    Args:
        postprocess: The validator's own.

    Attributes:
        found: The results so far, in input pixels.
        usable: Whether they hold everything that the task predicts. Releases of Ultralytics before 8.4 return bare
            rows, which say it all for detectors alone.
    """

    def __init__(self, postprocess: Callable[[Any], Any]) -> None:
        self.found: list[Detections] = []
        self.usable = True
        self._postprocess = postprocess

    def __call__(self, preds: Any) -> Any:
        """Run the host's NMS and keep what it returns."""
        results = self._postprocess(preds)
        # set again by every batch; a tuple is what segmentation returned before 8.4: boxes and prototypes apart
        self.usable = not isinstance(results, tuple) and all(map(_is_whole, results))
        if self.usable:
            self.found.extend(map(_detections, results))
        return results


def _is_whole(found: Any) -> bool:
    return isinstance(found, dict) or found.ndim == 1 or found.shape[1] == _COLUMNS


def _detections(found: Any) -> Detections:
    """One image's results by falling confidence, as Ultralytics returns them for any task."""
    if not isinstance(found, dict):
        rows = found.float().cpu().numpy()
        if rows.ndim == 1:  # a classifier's probabilities
            order = np.argsort(-rows, kind="stable")
            return Detections(np.zeros((len(rows), 4), np.float32), rows[order], order)
        return _sorted(Detections(rows[:, :4].copy(), rows[:, 4].copy(), rows[:, 5].astype(np.int64)))
    boxes, scores, classes = (found[key].float().cpu().numpy() for key in ("bboxes", "conf", "cls"))
    parts: dict[str, np.ndarray] = {}
    if boxes.shape[1] == 5:
        # upright boxes around them, by which sizes are told; overlap is that of the rotated ones
        parts["rotated"], boxes = boxes, upright(boxes)
    if "keypoints" in found:
        parts["keypoints"] = found["keypoints"].float().cpu().numpy()
    if "masks" in found:
        masks = found["masks"].cpu().numpy().astype(bool)
        flat = masks.reshape(len(masks), masks.shape[1] * masks.shape[2])
        parts["packed"] = np.packbits(flat, axis=1)  # 1 MB an image instead of 30
        parts["shape"] = np.full((len(masks), 2), masks.shape[1:], np.int64)
    return _sorted(Detections(boxes, scores, classes.astype(np.int64), parts))


def _sorted(found: Detections) -> Detections:
    return found.take(np.argsort(-found.confidence, kind="stable"))


def _unpacked(found: Detections) -> Detections:
    """With masks as the task's file has them: logits, positive inside."""
    if "packed" not in found.parts:
        return found
    height, width = found.parts["shape"][0].tolist() if len(found) else (1, 1)
    masks = np.unpackbits(found.parts["packed"], axis=1, count=height * width).reshape(len(found), height, width)
    # -0.5 and 0.5: the task's file takes values above 0 for the inside
    return found.with_parts(logits=masks.astype(np.float32) - np.float32(0.5))


def _whole(found: Iterable[Detections]) -> Letterbox:
    """A letterbox for results that stay in input pixels."""
    shapes = [one.parts["logits"].shape[1:] for one in found if "logits" in one.parts and len(one)]
    height, width = (side * RATIO for side in shapes[0]) if shapes else (1, 1)
    return Letterbox((height, width), (height, width), (height, width), 0, 0, (height, width))


@dataclass(frozen=True)
class EpochAgreement:
    """How results agree with those of the float model.

    Attributes:
        fidelity: 0 to 1, scored against its confident results as if they were labels: mAP50-95, averaged over boxes and
            masks or keypoints; the share of images with the same first class. 0 if the float model is confident of
            nothing.
        shift: Mean change of confidence over results that match its confident ones, -1 to 1. Fidelity ranks results, so
            it does not see confidences that shrink together; users' thresholds do.
    """

    fidelity: float
    shift: float


def agreement(found: Sequence[Detections], reference: Sequence[Detections], task: TaskSpec) -> EpochAgreement:
    """Compare results of each image with the float model's, for the same images.

    Args:
        found: Results of each image, by falling confidence.
        reference: The float model's.
        task: The rules of the model's task.
    """
    truths: list[Truth] = []
    matches: dict[str, list[Matches]] = {similarity.prefix: [] for similarity in task.similarities}
    changes = [np.zeros(0)]
    for packed, theirs in zip(found, reference, strict=True):
        mine, base = _unpacked(packed), _unpacked(theirs)
        truth = task.reference(base, EvaluateOptions.reference_conf, _whole((base, mine)))
        matched = task.match(mine, truth, 1.0)
        for prefix, one in matched.items():
            matches[prefix].append(one)
        truths.append(task.kept(truth))
        partner = next(iter(matched.values())).partner
        pairs = partner >= 0
        confidence = theirs.confidence[: len(truth.classes)]  # the truth are the first ones
        changes.append(mine.confidence[pairs] - confidence[partner[pairs]])
    # the empty array in front keeps this defined where no image has a pair
    every = np.concatenate(changes)
    shift = float(every.mean(dtype=np.float64)) if len(every) else 0.0
    if not any(len(truth.classes) for truth in truths):
        return EpochAgreement(0.0, shift)
    values = task.fidelity(found, matches, truths).values(np.ones((1, len(truths))))
    kinds = [float(value[0]) for name, value in values.items() if name.endswith("fidelity")]
    return EpochAgreement(sum(kinds) / len(kinds), shift)
