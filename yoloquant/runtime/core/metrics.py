"""Average precision with a weight per image, so that one piece of code gives estimates and bootstrap replicates.

AP is Ultralytics' (``ultralytics.utils.metrics.compute_ap``): precision made monotone, interpolated at 101 recalls,
integrated by trapezoids. Only right detections can raise precision, so the interpolated curve is a staircase whose
step between the recalls of two consecutive right detections has the height of the envelope at the second one; each AP
is then a sum over right detections instead of over all detections, and exactly the same number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional

import numpy as np

from ..device.processors import cpu_threads
from .detections import Detections
from .matching import IGNORED, IOU_THRESHOLDS, RIGHT, SIZES, Matches, Truth

RECALLS = np.linspace(0, 1, 101)
# Ultralytics', so that results are the same to the last digit.
EPSILON = 1e-16
BLOCK = 256
"""Rows of weights at once: their columns of the few images of a class stay in a processor's cache."""
ELEMENTS = 1 << 16
"""Numbers that one step of an AP works on, for the same reason."""
_FEW = 256


Fill = Callable[[int], None]
"""Writes AP into ``BLOCK`` rows of a table, given the first of them."""
lent: Optional[Callable[[Dict[int, "ClassScores"], np.ndarray, np.ndarray], Optional[Fill]]] = None
"""A faster way to fill a table (rows, classes by index, thresholds), lent by the host for what no device does; it gives
None where it is not worth it."""


@dataclass(frozen=True)
class ClassScores:
    """What AP needs to know of one class over all images; detections by falling score.

    Attributes:
        images: Index of the image of each detection, (n,).
        status: uint8 (n, thresholds): wrong, right or ignored.
        truths: Index of the image of each truth, (m,).
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


@dataclass(frozen=True)
class Ranked:
    """One model's detections on all images in the order that AP goes through them.

    Attributes:
        images: Index of the image of each detection, (n,).
        rows: By class, indices of its detections by falling score.
    """

    images: np.ndarray
    rows: dict[int, np.ndarray]

    @classmethod
    def of(cls, found: Sequence[Detections], order: Callable[[np.ndarray], np.ndarray] = stable_order) -> Ranked:
        """Rank detections.

        Args:
            found: Detections per image.
            order: Sorts confidences (n,) into indices by falling confidence.
        """
        images = np.repeat(np.arange(len(found)), [len(item) for item in found])
        # over all classes at once and then split: ties between classes fall as in Ultralytics
        rank = order(np.concatenate([item.confidence for item in found]) if found else np.zeros(0))
        label = np.concatenate([item.class_id for item in found]) if found else np.zeros(0, dtype=np.int64)
        return cls(images, {c: rank[rows] for c, rows in rows_by_class(label[rank]).items()})


def class_scores(
    found: Sequence[Detections] | Ranked,
    matches: Sequence[Matches],
    truths: Sequence[Truth],
    *,
    size: int | None = None,
    order: Callable[[np.ndarray], np.ndarray] = stable_order,
) -> dict[int, ClassScores]:
    """Collect per class what AP needs, for every class that has truths.

    Args:
        found: Detections per image, or what ``Ranked.of`` made of them.
        matches: Their matches per image.
        truths: Ground truth per image.
        size: Index into SIZES, or None for all sizes.
        order: Sorts confidences (n,) into indices by falling confidence.
    """
    index = 0 if size is None else size + 1
    ranked = found if isinstance(found, Ranked) else Ranked.of(found, order)
    steps = len(IOU_THRESHOLDS)
    # (detections, thresholds) of one size range over all images.
    status = np.concatenate([m.status[:, index] for m in matches]) if matches else np.zeros((0, steps), dtype=np.uint8)
    counted = [t.classes if size is None else t.classes[t.sizes == size] for t in truths]
    whose = np.repeat(np.arange(len(counted)), [len(c) for c in counted])
    classes = np.concatenate(counted) if counted else np.zeros(0, dtype=np.int64)
    none = np.zeros(0, dtype=np.int64)
    result = {}
    for cls, truth in rows_by_class(classes).items():
        rows = ranked.rows.get(cls, none)
        # `take`, here and below: indexing a table by rows goes through its columns one by one
        result[cls] = ClassScores(ranked.images[rows], status.take(rows, axis=0), whose[truth])
    return result


def rows_by_class(labels: np.ndarray) -> dict[int, np.ndarray]:
    """Ascending indices of each class among labels (n,), by class in ascending order."""
    few = len(labels) and labels.min() >= 0 and labels.max() < 1 << 16
    order = np.argsort(labels.astype(np.uint16) if few else labels, kind="stable")  # a radix sort for 16 bits
    classes, first = np.unique(labels[order], return_index=True)
    return dict(zip(classes.tolist(), np.split(order, first[1:])))


def any_column(table: np.ndarray) -> np.ndarray:
    """Indices of the rows of a table of bools (n, columns) that hold a true one."""
    # column by column: rows of ten are too short for NumPy's loops
    return np.flatnonzero(np.ascontiguousarray(table.T).any(axis=0))


class _ClassAp:
    """Everything about a class that is the same for every row of weights.

    Args:
        scores: The class.
        many: Whether there are many rows of weights.
    """

    def __init__(self, scores: ClassScores, many: bool) -> None:
        right = scores.status == RIGHT
        places = any_column(right)
        # behind the last right detection nothing changes any more: precision is monotone from the right
        last = int(places[-1]) + 1 if len(places) else 0
        ignored = scores.status[:last] == IGNORED
        self._truths, self._images, self._right = scores.truths, scores.images[places], right.take(places, axis=0)
        sums = _SparseSums if many else _Sums
        self._every = sums(scores.images[:last], places, ~ignored if ignored.any() else None)

    def __call__(self, by_image: np.ndarray) -> np.ndarray:
        """AP for weights (images, rows): float64 (rows, thresholds)."""
        total = by_image[self._truths].sum(axis=0)
        result = np.zeros((by_image.shape[1], self._right.shape[1]))
        every = self._every(by_image)
        for places, thresholds in self._parts():
            right, counts = self._right[places, thresholds], every[places]
            counts = counts if counts.shape[1] == 1 else counts[:, thresholds]
            columns = max(64, ELEMENTS // max(1, right.size))
            for start in range(0, len(total), columns):
                rows = slice(start, start + columns)
                hits = by_image[self._images[places], rows][:, None] * right[:, :, None]
                result[rows, thresholds] = _staircase(hits, counts[:, :, rows], total[rows]).T
        # a class that is not in a resample has no AP, and is left out of its mean
        result[total <= 0] = np.nan
        return result

    def _parts(self) -> Iterator[tuple[np.ndarray | slice, slice]]:
        """Places and thresholds to work on together.

        All at once where there are few: a detection that is wrong at a threshold changes nothing there, since it cannot
        raise precision. One threshold after the other where that saves more than it costs.
        """
        if len(self._images) < _FEW:
            if len(self._images):
                yield slice(None), slice(None)
            return
        for t in range(self._right.shape[1]):
            places = np.flatnonzero(self._right[:, t])
            if len(places):
                yield places, slice(t, t + 1)


class _Sums:
    """Weight of all detections up to and including some places, for few rows of weights.

    Args:
        images: Image of each detection, by falling score, up to the last place (n,).
        places: Ascending indices into it, (k,).
        counted: Which detections count at which threshold, (n, thresholds); all of them if None.
    """

    def __init__(self, images: np.ndarray, places: np.ndarray, counted: np.ndarray | None) -> None:
        self._images, self._places, self._counted = images, places, counted

    def __call__(self, by_image: np.ndarray) -> np.ndarray:
        """The sums for weights (images, rows): float64 (k, thresholds or 1, rows)."""
        if by_image.shape[1] == 1 and bool((by_image == 1).all()):
            return self._counts()[:, :, None]
        each = by_image[self._images][:, None]
        each = each if self._counted is None else each * self._counted[:, :, None]
        # Over all detections and then picked: wrong ones between two right ones lower the precision of the second.
        return np.asarray(_scan(np.add, each)[self._places])

    def _counts(self) -> np.ndarray:
        """The sums where every image counts once, (k, thresholds or 1): without a running total of all detections."""
        every = self._places + 1.0
        if self._counted is None:
            return every[:, None]
        left_out = [np.flatnonzero(~column) for column in self._counted.T]
        return np.stack([every - np.searchsorted(rows, self._places, side="right") for rows in left_out], axis=1)


class _SparseSums(_Sums):
    """The same for many rows, as sparse products; only the bootstrap has them, and it does not run on devices."""

    def __call__(self, by_image: np.ndarray) -> np.ndarray:
        """The sums for weights (images, rows): float64 (k, thresholds or 1, rows)."""
        counted = np.ones((len(self._images), 1)) if self._counted is None else self._counted.astype(np.float64)
        parts = (added_between(self._images, self._places, each, len(by_image)) for each in counted.T)
        return _scan(np.add, np.stack([part @ by_image for part in parts], axis=1))


def added_between(images: np.ndarray, places: np.ndarray, each: np.ndarray, count: int) -> Any:
    """What detections add to every image up to each of some places, from the one before it: sparse (places, images).

    Args:
        images: Image of each detection up to the last place, (n,).
        places: Ascending indices into it.
        each: What each adds, float64 (n,).
        count: Images.
    """
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

    return csr_matrix((each, images, np.concatenate([[0], places + 1])), shape=(len(places), count))


def _staircase(hits: np.ndarray, every: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Integrate interpolated precision over recall.

    Args:
        hits: Weight of each detection where it is right, (n, thresholds, rows); overwritten.
        every: All detections up to there, (n, thresholds or 1, rows).
        total: Truths, (rows,).

    Returns:
        float64 (thresholds, rows).
    """
    right = _scan(np.add, hits)
    # where nothing has been drawn yet both are 0
    envelope = np.divide(right, every + (every == 0))
    _scan(np.maximum, envelope[::-1])
    # How many of the 101 recalls lie below each right detection's; differences are the widths of the stairs.
    below = grid_below(np.divide(right, total + EPSILON, out=right))
    steps = np.subtract(below[1:], below[:-1], out=right[1:])
    steps *= envelope[1:]
    # The trapezoid rule counts the first grid point (recall 0) half, and the last is always 0.
    first = (below[0] - 0.5) * envelope[0]
    return np.asarray((first + steps.sum(axis=0)) / (len(RECALLS) - 1))


def _scan(operation: np.ufunc, values: np.ndarray) -> np.ndarray:
    """Accumulate along the first axis, in place.

    ``accumulate`` goes through one element after the other (5 ns each with NumPy 2.4); this goes through rows of
    blocks, then through blocks, and what is exact in one order is so in the other.
    """
    width = max(1, math.isqrt(len(values)))
    blocks = values[: len(values) // width * width].reshape(-1, width, *values.shape[1:])  # a view
    for i in range(1, width):
        operation(blocks[:, i], blocks[:, i - 1], out=blocks[:, i])
    for i in range(1, len(blocks)):
        operation(blocks[i], blocks[i - 1, -1], out=blocks[i])
    for i in range(len(blocks) * width, len(values)):
        operation(values[i], values[i - 1], out=values[i])
    return values


def grid_below(recall: np.ndarray) -> np.ndarray:
    """How many of RECALLS are smaller than each recall: ``searchsorted``, by arithmetic instead of a search.

    RECALLS are multiples of a hundredth as floats round them, so only the nearest one has to be looked at.
    """
    nearest = recall * (len(RECALLS) - 1)
    np.rint(nearest, out=nearest)
    nearest += nearest * RECALLS[1] < recall
    return nearest


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

    def means(self) -> MeanTable:
        """What is asked of the table, in an eleventh of its memory."""
        return MeanTable(self.classes, self.map50_95, self.map50, self.per_class)


@dataclass(frozen=True)
class MeanTable:
    """Means of an ``ApTable``; see its properties."""

    classes: np.ndarray
    map50_95: np.ndarray
    map50: np.ndarray
    per_class: np.ndarray


def ap_table(scores: dict[int, ClassScores], weights: np.ndarray) -> ApTable:
    """AP of every class for each row of image weights.

    An image of weight w counts like w copies of it; weights of 1 give the AP that Ultralytics prints.

    Args:
        scores: Every class.
        weights: float64 (replicates, images).
    """
    classes = np.array(sorted(scores), dtype=np.int64)
    ap = np.zeros((len(weights), len(classes), len(IOU_THRESHOLDS)))
    fill = (lent(scores, weights, ap) if lent else None) or _by_numpy(scores, weights, ap)
    starts = range(0, len(weights) if scores else 0, BLOCK)
    if len(starts) > 1:
        with ThreadPoolExecutor(min(cpu_threads(), len(starts))) as pool:  # most of it is outside of the GIL
            list(pool.map(fill, starts))
    else:
        for start in starts:
            fill(start)
    return ApTable(classes, ap)


def _by_numpy(scores: dict[int, ClassScores], weights: np.ndarray, ap: np.ndarray) -> Fill:
    parts = [_ClassAp(scores[c], many=len(weights) > 1) for c in sorted(scores)]

    def fill(start: int) -> None:
        by_image = np.ascontiguousarray(weights[start : start + BLOCK].T, np.float64)
        for index, part in enumerate(parts):
            ap[start : start + BLOCK, index] = part(by_image)

    return fill


def _mean_present(values: np.ndarray) -> np.ndarray:
    """Mean over classes that are present, per replicate; 0 if there is none."""
    present = ~np.isnan(values)
    count = present.sum(axis=1)
    return np.asarray(np.where(present, values, 0.0).sum(axis=1) / np.maximum(count, 1))


def per_size_map(
    found: Sequence[Detections] | Ranked, matches: Sequence[Matches], truths: Sequence[Truth]
) -> dict[str, float | None]:
    """mAP50-95 of small, medium and large objects; None where there is no truth of that size."""
    ranked = found if isinstance(found, Ranked) else Ranked.of(found)
    # No resamples: sizes are printed without intervals.
    one = np.ones((1, len(matches)))
    result: dict[str, float | None] = {}
    for index, size in enumerate(SIZES):
        scores = class_scores(ranked, matches, truths, size=index)
        result[size] = float(ap_table(scores, one).map50_95[0]) if scores else None
    return result
