"""What a model does at the confidence that is deployed: precision, recall, F1 and false alarms.

mAP integrates over every confidence, so scores that shrink under INT8 leave it as it is; a fixed threshold then loses
detections. Counts are pooled over classes, at IoU 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..runtime.core.detections import Detections
from ..runtime.core.matching import RIGHT, Matches, Truth
from ..runtime.core.metrics import added_between, rows_by_class
from .bootstrap import interval
from .results import Interval, OperatingPoint
from .running_totals import RunningTotals

LOWEST = 0.01
"""Lowest confidence that is offered as a match: below it a threshold selects noise."""
F1_STEP = 0.001
"""Values of F1 that count as the same when a confidence is matched by it."""
F1_KEPT = 0.0025
"""Loss of F1 for which the deployed confidence stays: a hundred images do not tell a quarter of a point, and F1 is so
flat that a threshold would move far for it."""
LEAST = 20
"""What the FP32 model must give of one class for a confidence of its own: of fewer, chance would choose it."""
ELEMENTS = 1 << 21
"""Thresholds times replicates that are looked at together: all at once would be gigabytes."""

DENSE, LARGEST = 8, 1 << 23
"""Elements of a dense matrix for each one that a sparse one would hold, and at all, up to which it is the faster."""


@dataclass(frozen=True)
class Counted:
    """Detections of one model over all images, by falling confidence.

    Attributes:
        images: Index of the image of each, (n,).
        confidence: float32 (n,).
        classes: int64 (n,).
        right: Whether each hits a label at IoU 0.5, (n,).
        truths: Labels in each image, (images,).
        truth_images: For every class that has labels, the image of each, (m,).
    """

    images: np.ndarray
    confidence: np.ndarray
    classes: np.ndarray
    right: np.ndarray
    truths: np.ndarray
    truth_images: Mapping[int, np.ndarray]

    @cached_property
    def _rows(self) -> dict[int, np.ndarray]:
        return rows_by_class(self.classes)

    def rows_of(self, label: int) -> np.ndarray:
        """Indices of one class's detections, by falling confidence."""
        return self._rows.get(label, np.zeros(0, np.int64))

    def truths_of(self, label: int) -> np.ndarray:
        """Labels of one class in each image, float64 (images,)."""
        where = self.truth_images.get(label, np.zeros(0, np.int64))
        return np.bincount(where, minlength=len(self.truths)).astype(np.float64)


def count(found: Sequence[Detections], matches: Sequence[Matches], truths: Sequence[Truth]) -> Counted:
    """Pool detections of every image.

    Args:
        found: Detections per image.
        matches: Their matches with the labels; with none, no detection is right.
        truths: Labels per image.
    """
    lengths = [len(each) for each in found]
    confidence = np.concatenate([each.confidence for each in found]) if found else np.zeros(0, np.float32)
    classes = np.concatenate([each.class_id for each in found]) if found else np.zeros(0, np.int64)
    # Without labels nothing is right, and only the number of detections is asked for.
    right = np.zeros(len(confidence), bool)
    if matches and len(confidence):
        # Of all sizes, at IoU 0.5.
        right = np.concatenate([m.status[:, 0, 0] == RIGHT for m in matches])
    order = np.argsort(-confidence, kind="stable")
    per_image = np.array([len(t.classes) for t in truths], np.int64)
    labels = np.concatenate([t.classes for t in truths]) if truths else np.zeros(0, np.int64)
    whose = np.repeat(np.arange(len(truths)), per_image)
    return Counted(
        np.repeat(np.arange(len(found)), lengths)[order],
        confidence[order],
        classes[order],
        right[order],
        per_image.astype(np.float64),
        {k: whose[rows] for k, rows in rows_by_class(labels).items()},
    )


@dataclass(frozen=True)
class Rates:
    """One row for each row of image weights.

    Attributes:
        precision: Right detections among all; 1 where there are none.
        recall: Labels that were found among all.
        f1: Harmonic mean of both.
        false_alarms: Wrong detections per image.
        detections: Detections per image.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    false_alarms: np.ndarray
    detections: np.ndarray


def of_class(counted: Counted, label: int) -> Counted:
    """The detections and labels of one class."""
    chosen = counted.rows_of(label)
    return Counted(
        counted.images[chosen],
        counted.confidence[chosen],
        counted.classes[chosen],
        counted.right[chosen],
        counted.truths_of(label),
        {label: counted.truth_images.get(label, np.zeros(0, np.int64))},
    )


def rates(counted: Counted, conf: float | np.ndarray, weights: np.ndarray) -> Rates:
    """Rates at one confidence, or at one for each class.

    Args:
        counted: The model's detections.
        conf: Detections with a higher confidence count, as in ``predict``; float32 (classes,) if classes differ in it.
        weights: float64 (replicates, images).
    """
    # above and not at it, as Ultralytics' predict selects
    chosen = counted.confidence > (conf[counted.classes] if isinstance(conf, np.ndarray) else conf)
    shape = weights.shape[1]
    hits = np.bincount(counted.images[chosen & counted.right], minlength=shape).astype(np.float64)
    every = np.bincount(counted.images[chosen], minlength=shape).astype(np.float64)
    right, total = weights @ hits, weights @ every
    labels, images = weights @ counted.truths, weights.sum(axis=1)
    ones = np.ones(len(weights))
    return Rates(
        # nothing detected, nothing wrong: a precision of 0 would punish silence twice, recall does that already
        np.divide(right, total, out=ones.copy(), where=total > 0),
        np.divide(right, labels, out=np.zeros(len(weights)), where=labels > 0),
        np.divide(2 * right, total + labels, out=np.zeros(len(weights)), where=total + labels > 0),
        (total - right) / images,
        total / images,
    )


def operating_point(
    counted: Counted, conf: float, weights: np.ndarray, level: float, labels: Sequence[str], *, labelled: bool
) -> OperatingPoint:
    """The rates at a confidence with their intervals, and F1 of every class that has labels.

    Args:
        counted: The model's detections.
        conf: The confidence.
        weights: float64 (1 + replicates, images); row 0 is the sample.
        level: Confidence level of intervals.
        labels: A label for every class.
        labelled: Whether there are labels; without them only detections are counted.
    """
    point = rates(counted, conf, weights)
    if not labelled:
        return OperatingPoint(conf, interval(point.detections, level))
    one = weights[:1]
    per_class = {
        labels[k] if k < len(labels) else f"class_{k}": rates(of_class(counted, k), conf, one)
        for k in counted.truth_images
    }
    return OperatingPoint(
        conf,
        interval(point.detections, level),
        interval(point.precision, level),
        interval(point.recall, level),
        interval(point.f1, level),
        interval(point.false_alarms, level),
        {name: float(r.precision[0]) for name, r in per_class.items()},
        {name: float(r.recall[0]) for name, r in per_class.items()},
        {name: float(r.f1[0]) for name, r in per_class.items()},
        {name: float(r.false_alarms[0]) for name, r in per_class.items()},
    )


def operating_drops(
    before: Counted,
    after: Counted,
    conf: float,
    weights: np.ndarray,
    level: float,
    own: float | np.ndarray | None = None,
) -> dict[str, Interval]:
    """Paired intervals of what an artifact loses at a confidence, by the name of the gate limit.

    Args:
        before: The FP32 model's detections.
        after: The artifact's.
        conf: The confidence that is deployed.
        weights: float64 (1 + replicates, images).
        level: Confidence level of intervals.
        own: The artifact's confidence, or one for each class, where it is not the FP32 model's.
    """
    old, new = rates(before, conf, weights), rates(after, conf if own is None else own, weights)
    return {
        "f1_drop": interval(old.f1 - new.f1, level),
        "precision_drop": interval(old.precision - new.precision, level),
        "recall_drop": interval(old.recall - new.recall, level),
        "false_alarm_rise": interval(new.false_alarms - old.false_alarms, level),
    }


def matched_f1(
    before: Counted, after: Counted, conf: float, weights: np.ndarray, level: float, *, least: int = 1
) -> Interval | None:
    """The confidence at which an artifact's F1 is the FP32 model's at ``conf``, or as near to it as it comes.

    F1 rises and falls with the threshold, so several confidences may do; the one nearest to ``conf`` is taken, and
    ``conf`` itself where next to nothing is lost at it.

    Args:
        before: The FP32 model's detections.
        after: The artifact's.
        conf: The confidence that is deployed.
        weights: float64 (1 + replicates, images).
        level: Confidence level of the interval.
        least: Labels that there must be.

    Returns:
        The confidence; None where the FP32 model finds nothing right, or labels are too few.
    """
    wanted = rates(before, conf, weights).f1
    chosen = after.confidence > LOWEST
    # float64: the middle of two neighbouring float32 numbers is none itself.
    images, scores = after.images[chosen], after.confidence[chosen].astype(np.float64)
    labels = weights @ after.truths
    if wanted[0] <= 0 or labels[0] < least or not len(scores):
        return None
    # INT8 gives many detections one score: no threshold lies between those, and totals are only asked for behind them.
    ends = np.flatnonzero(np.append(scores[:-1] > scores[1:], True))
    cuts = _cuts(scores)[ends]
    place = np.abs(cuts - conf)[:, None]
    right = after.right[chosen].astype(np.float64)
    every, hits = (_added(images, ends, each, weights.shape[1]) for each in (np.ones(len(images)), right))
    values = np.empty(len(weights))
    count = max(1, ELEMENTS // len(ends))
    for start in range(0, len(weights), count):
        rows = slice(start, start + count)
        part = np.ascontiguousarray(weights[rows].T)
        both = np.cumsum(every @ part, axis=0) + labels[rows]
        # F1 is 2 right / (found + labels); (thresholds, rows).
        f1 = np.divide(2 * np.cumsum(hits @ part, axis=0), both, out=np.zeros_like(both), where=both > 0)
        far = np.abs(f1 - wanted[rows])
        near = far <= far.min(axis=0) + F1_STEP
        values[rows] = cuts[np.where(near, place, np.inf).argmin(axis=0)]
    kept = rates(after, conf, weights).f1 >= wanted - F1_KEPT
    return interval(np.where(kept, conf, values), level)


def _added(images: np.ndarray, ends: np.ndarray, each: np.ndarray, count: int) -> Any:
    """What detections add to every image up to each of some places: a matrix (places, images).

    Sparse, or dense where an INT8 head's few scores leave few places: a product with that takes a sixth of the time.
    Sums of whole weights are exact in either.
    """
    if len(ends) * count > min(DENSE * len(images), LARGEST):
        return added_between(images, ends, each, count)
    place = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=-1))
    return np.bincount(place * count + images, each, minlength=len(ends) * count).reshape(len(ends), count)


def _cuts(scores: np.ndarray) -> np.ndarray:
    """Confidences between each detection, by falling score, and the next one."""
    # Half-way between two: at a score itself, rounding would decide whether that detection counts.
    bounds = np.concatenate([scores, [LOWEST]])
    return np.asarray((bounds[:-1] + bounds[1:]) / 2)


def matched_conf(
    before: Counted, after: Counted, conf: float, weights: np.ndarray, level: float, *, labelled: bool, least: int = 1
) -> Interval | None:
    """The confidence at which an artifact raises as many false alarms as the FP32 model does at ``conf``.

    Without labels, at which it finds as much. False alarms fall with every step of the threshold, which F1 does not,
    so there is exactly one such confidence.

    Args:
        before: The FP32 model's detections.
        after: The artifact's.
        conf: The confidence that is deployed.
        weights: float64 (1 + replicates, images).
        level: Confidence level of the interval.
        labelled: Whether there are labels.
        least: False alarms, or detections, that the FP32 model must give.

    Returns:
        The confidence; None where the FP32 model gives nothing to match, or too little.
    """
    wrong = (lambda c: ~c.right) if labelled else (lambda c: np.ones(len(c.right), bool))
    mine = (before.confidence > conf) & wrong(before)
    wanted = weights @ np.bincount(before.images[mine], minlength=weights.shape[1]).astype(np.float64)
    chosen = wrong(after) & (after.confidence > LOWEST)
    images, scores = after.images[chosen], after.confidence[chosen].astype(np.float64)
    if wanted[0] < least or not len(scores):
        return None
    return interval(_cuts(scores)[RunningTotals(weights, images).nearest(wanted)], level)
