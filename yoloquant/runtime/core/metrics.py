"""Average precision with a weight per image, so that one piece of code gives estimates and bootstrap replicates.

AP is Ultralytics' (``ultralytics.utils.metrics.compute_ap``): precision made monotone, interpolated at 101 recalls,
integrated by trapezoids. Only right detections can raise precision, so the interpolated curve is a staircase whose
step between the recalls of two consecutive right detections has the height of the envelope at the second one; each AP
is then a sum over right detections instead of over all detections, and exactly the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .detections import Detections
from .matching import IGNORED, IOU_THRESHOLDS, RIGHT, SIZES, Matches, Truth

RECALLS = np.linspace(0, 1, 101)
EPSILON = 1e-16
CHUNK = 4_000_000
"""Weights held at once while accumulating; bounds memory on large data sets."""


@dataclass(frozen=True)
class ClassScores:
    """What AP needs to know of one class over all images; detections by falling score.

    Attributes:
        images: Index of the image of each detection, (n,).
        status: uint8 (n, thresholds): wrong, right or ignored.
        truths: Number of truths in each image, (images,).
    """

    images: np.ndarray
    status: np.ndarray
    truths: np.ndarray


def stable_order(confidence: np.ndarray) -> np.ndarray:
    """Order of detections by falling confidence; ties stay in the order of the images, and within one as selected.

    INT8 heads give many equal confidences, and the order among them is worth up to a point of mAP. Ultralytics' sort is
    not stable, so that ties fall as NumPy's vector instructions on the processor have it (.2464 with AVX512 and .2520
    without, on one INT8 model); this one depends on nothing but the data.
    """
    return np.argsort(-confidence, kind="stable")


def class_scores(
    found: Sequence[Detections],
    matches: Sequence[Matches],
    truths: Sequence[Truth],
    *,
    size: int | None = None,
    order: Callable[[np.ndarray], np.ndarray] = stable_order,
) -> dict[int, ClassScores]:
    """Collect per class what AP needs, for every class that has truths.

    Args:
        found: Detections per image.
        matches: Their matches per image.
        truths: Ground truth per image.
        size: Index into SIZES, or None for all sizes.
        order: Sorts confidences (n,) into indices by falling confidence.
    """
    index = 0 if size is None else size + 1
    lengths = [len(item) for item in found]
    image = np.repeat(np.arange(len(found)), lengths)
    score = np.concatenate([item.confidence for item in found]) if found else np.zeros(0)
    label = np.concatenate([item.class_id for item in found]) if found else np.zeros(0, dtype=np.int64)
    steps = len(IOU_THRESHOLDS)
    status = np.concatenate([m.status[:, index] for m in matches]) if matches else np.zeros((0, steps), dtype=np.uint8)
    rank = order(score)
    image, label, status = image[rank], label[rank], status[rank]
    counted = [t.classes if size is None else t.classes[t.sizes == size] for t in truths]
    present = np.unique(np.concatenate(counted)) if counted else np.zeros(0, dtype=np.int64)
    result = {}
    for cls in present.tolist():
        rows = np.flatnonzero(label == cls)
        per_image = np.array([np.count_nonzero(c == cls) for c in counted], dtype=np.float64)
        result[cls] = ClassScores(image[rows], status[rows], per_image)
    return result


def average_precision(scores: ClassScores, weights: np.ndarray) -> np.ndarray:
    """AP of one class at every IoU threshold for each row of image weights.

    An image of weight w counts like w copies of it; weights of 1 give the AP that Ultralytics prints.

    Args:
        scores: The class.
        weights: float64 (replicates, images).

    Returns:
        float64 (replicates, thresholds); NaN where the class has no truth in a replicate.
    """
    total = weights @ scores.truths
    result = np.zeros((len(weights), scores.status.shape[1]))
    right = scores.status == RIGHT
    places = right.any(axis=1).nonzero()[0]
    ignored = scores.status == IGNORED
    rows = max(1, CHUNK // max(1, len(places)))
    for start in range(0, len(weights) if len(places) else 0, rows):
        part = slice(start, start + rows)
        by_image = np.ascontiguousarray(weights[part].T)
        hits = by_image[scores.images[places]]  # (places, replicates)
        shared = None if ignored.any() else _cumulative(scores.images, places, by_image)
        for t in range(result.shape[1]):
            chosen = right[places, t]
            if not chosen.any():
                continue
            if shared is None:
                keep = ~ignored[:, t]
                moved = np.cumsum(keep)[places[chosen]] - 1  # the same places among what is not ignored
                every = _cumulative(scores.images[keep], moved, by_image)
            else:
                every = shared[chosen]
            result[part, t] = _staircase(np.cumsum(hits[chosen], axis=0), every, total[part])
    result[total <= 0] = np.nan
    return result


def _cumulative(images: np.ndarray, places: np.ndarray, by_image: np.ndarray) -> np.ndarray:
    """Weight of all detections up to and including some places.

    Args:
        images: Image of each detection, by falling score, (n,).
        places: Ascending indices into it, (k,).
        by_image: Weights, (images, replicates).

    Returns:
        float64 (k, replicates).
    """
    if by_image.shape[1] == 1:  # an estimate; many replicates are only weighed by the bootstrap
        return np.asarray(np.cumsum(by_image[images[: int(places[-1]) + 1]], axis=0)[places])
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

    last = int(places[-1]) + 1
    between = np.searchsorted(places, np.arange(last), side="left")
    count = csr_matrix((np.ones(last), (between, images[:last])), shape=(len(places), len(by_image)))
    return np.asarray(np.cumsum(count @ by_image, axis=0))


def _staircase(right: np.ndarray, every: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Integrate interpolated precision over recall.

    Args:
        right: Right detections up to and including each right one, (n, replicates).
        every: All detections up to there, (n, replicates).
        total: Truths, (replicates,).
    """
    recall = right / (total + EPSILON)
    precision = np.divide(right, every, out=np.zeros_like(right), where=every > 0)
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    # Grid points below each recall; the trapezoid rule counts the first (recall 0) half, and the last is always 0.
    below = np.searchsorted(RECALLS, recall.ravel(), side="left").reshape(recall.shape).astype(np.float64)
    below -= 0.5 * (below > 0)
    steps = np.diff(below, axis=0, prepend=0.0)
    return np.asarray((envelope * steps).sum(axis=0) / (len(RECALLS) - 1))


@dataclass(frozen=True)
class ApTable:
    """AP of every class, for each replicate.

    Attributes:
        classes: Class indices, (c,).
        ap: float64 (replicates, c, thresholds); NaN where a class has no truth in a replicate.
    """

    classes: np.ndarray
    ap: np.ndarray

    @property
    def map50_95(self) -> np.ndarray:
        """Mean over classes and IoU thresholds, per replicate."""
        return _mean_present(self.ap.mean(axis=2))

    @property
    def map50(self) -> np.ndarray:
        """Mean over classes at IoU 0.5, per replicate."""
        return _mean_present(self.ap[:, :, 0])

    @property
    def per_class(self) -> np.ndarray:
        """AP50-95, (replicates, c)."""
        return np.asarray(self.ap.mean(axis=2))


def ap_table(scores: dict[int, ClassScores], weights: np.ndarray) -> ApTable:
    """AP of every class for each row of image weights (replicates, images)."""
    classes = np.array(sorted(scores), dtype=np.int64)
    parts = [average_precision(scores[c], weights) for c in classes.tolist()]
    ap = np.stack(parts, axis=1) if parts else np.zeros((len(weights), 0, len(IOU_THRESHOLDS)))
    return ApTable(classes, ap)


def _mean_present(values: np.ndarray) -> np.ndarray:
    """Mean over classes that are present, per replicate; 0 if there is none."""
    present = ~np.isnan(values)
    count = present.sum(axis=1)
    return np.asarray(np.where(present, values, 0.0).sum(axis=1) / np.maximum(count, 1))


def per_size_map(
    found: Sequence[Detections], matches: Sequence[Matches], truths: Sequence[Truth]
) -> dict[str, float | None]:
    """mAP50-95 of small, medium and large objects; None where there is no truth of that size."""
    one = np.ones((1, len(found)))
    result: dict[str, float | None] = {}
    for index, size in enumerate(SIZES):
        scores = class_scores(found, matches, truths, size=index)
        result[size] = float(ap_table(scores, one).map50_95[0]) if scores else None
    return result
