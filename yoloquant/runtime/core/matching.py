"""Matching detections with ground truth on one image.

The rule is pycocotools' and Ultralytics': detections in order of falling score, each takes the unclaimed truth of its
class with the largest IoU, at every IoU threshold on its own. Objects outside a size range are *ignored* in that range
(pycocotools, ``COCOeval.evaluateImg``): a detection that takes one, or that takes none and is itself outside the range,
counts neither as right nor as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .detections import Detections

# float32 as Ultralytics' `iouv`: an overlap of 0.75 exactly must fall on the same side.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10, dtype=np.float32)
SIZES: tuple[str, ...] = ("small", "medium", "large")
SMALL, LARGE = 32.0**2, 96.0**2
"""COCO's borders between small, medium and large, in square pixels of the original image."""

WRONG, RIGHT, IGNORED = 0, 1, 2


@dataclass(frozen=True)
class Truth:
    """What detections of one image are scored against: labels, or another model's detections.

    Attributes:
        boxes: float32 (m, 4), xyxy in input pixels.
        classes: int64 (m,).
        sizes: int64 (m,), index into SIZES.
        parts: What a task compares besides boxes, each with m rows; see the task's file.
    """

    boxes: np.ndarray
    classes: np.ndarray
    sizes: np.ndarray
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Matches:
    """Outcome of matching one image.

    Attributes:
        status: uint8 (n, 1 + sizes, thresholds): WRONG, RIGHT or IGNORED; index 0 of the second axis is *all sizes*.
        partner: int64 (n,), the truth that each detection took at IoU 0.5 over all sizes, or -1.
        overlap: float32 (n,), IoU with that partner.
    """

    status: np.ndarray
    partner: np.ndarray
    overlap: np.ndarray


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pairwise IoU of xyxy boxes: (n, 4) and (m, 4) give float32 (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    # Clipped before the product: two negative sides would give a positive area.
    inner = np.clip(high - low, 0, None).prod(axis=2)
    area_a = (a[:, 2:] - a[:, :2]).prod(axis=1)
    area_b = (b[:, 2:] - b[:, :2]).prod(axis=1)
    return np.asarray(inner / (area_a[:, None] + area_b[None] - inner + np.float32(1e-7)), dtype=np.float32)


def size_index(boxes: np.ndarray, area_scale: float) -> np.ndarray:
    """Index into SIZES of xyxy boxes (n, 4) in input pixels.

    Args:
        boxes: Boxes.
        area_scale: Factor from input to original square pixels.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * area_scale
    return np.asarray(np.digitize(areas, (SMALL, LARGE)), dtype=np.int64)


def match(found: Detections, truth: Truth, area_scale: float, similarity: np.ndarray | None = None) -> Matches:
    """Match one image's detections with its ground truth.

    Args:
        found: Detections by falling score.
        truth: Ground truth.
        area_scale: Factor from input to original square pixels, for the sizes of detections.
        similarity: How similar each truth is to each detection, (m, n), 0 to 1; IoU of the boxes if None.
    """
    n, steps = len(found), len(IOU_THRESHOLDS)
    ranges = 1 + len(SIZES)
    status = np.zeros((n, ranges, steps), dtype=np.uint8)
    partner, overlap = np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.float32)
    outside = size_index(found.xyxy, area_scale)[:, None] != np.arange(len(SIZES))
    # What a detection is worth in a size range if it takes nothing; those that take something are set below.
    status[:, 1:, :] = np.where(outside, IGNORED, WRONG)[:, :, None]
    if n == 0 or len(truth.classes) == 0:
        return Matches(status, partner, overlap)
    alike = box_iou(truth.boxes, found.xyxy) if similarity is None else similarity
    # Zero instead of a mask: an overlap of 0 is below every threshold, so other classes drop out by themselves.
    iou = alike * (truth.classes[:, None] == found.class_id)
    ignored = np.zeros((len(truth.classes), ranges), dtype=bool)
    ignored[:, 1:] = truth.sizes[:, None] != np.arange(len(SIZES))
    claimed = np.zeros((len(truth.classes), ranges, steps), dtype=bool)
    # Detections that reach not even the lowest threshold can take nothing; most of a validation's are such.
    close = iou >= IOU_THRESHOLDS[0]
    # One after the other, by falling score: what one takes is gone for those behind it.
    for j in np.flatnonzero(close.any(axis=0)):
        rows = np.flatnonzero(close[:, j])
        taken, partner[j] = _take(iou[rows, j], ignored[rows], claimed, rows)
        np.copyto(status[j], taken, where=taken != WRONG)
        overlap[j] = iou[partner[j], j] if partner[j] >= 0 else 0.0
    return Matches(status, partner, overlap)


def _take(iou: np.ndarray, ignored: np.ndarray, claimed: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Let one detection take a truth in every size range and at every threshold; marks it as claimed.

    Args:
        iou: Its IoU with the k candidates, (k,).
        ignored: Which candidates are ignored in which size range, (k, ranges).
        claimed: Claims so far over all truths, (m, ranges, thresholds); changed in place.
        rows: Index of each candidate among all truths, (k,).

    Returns:
        Its status (ranges, thresholds), WRONG where it took none, and the truth taken over all sizes at IoU 0.5 or -1.
    """
    free = (iou[:, None] >= IOU_THRESHOLDS)[:, None, :] & ~claimed[rows]
    # A counted truth comes before an ignored one however large the overlap with the latter (pycocotools).
    # 2.0 is above every IoU, so that any counted truth outranks every ignored one.
    rank = np.where(free, iou[:, None, None] + np.where(ignored, 0.0, 2.0)[:, :, None], 0.0)
    best = rank.argmax(axis=0)
    value = rank.max(axis=0)
    hit = value > 0
    i, t = np.nonzero(hit)
    claimed[rows[best[i, t]], i, t] = True
    status = np.where(value >= 2.0, RIGHT, np.where(hit, IGNORED, WRONG)).astype(np.uint8)
    return status, int(rows[best[0, 0]]) if hit[0, 0] else -1
