"""Tables of AP for the bootstrap of many images, by compiled loops where numba is installed."""

from __future__ import annotations

import numpy as np

from ..runtime.core import metrics
from ..runtime.core.matching import IGNORED, IOU_THRESHOLDS, RIGHT
from ..runtime.core.metrics import EPSILON, RECALLS, ClassScores, any_column

COMPILED_FROM = 1 << 26
"""Detections times rows of weights from which numba is worth its import."""


def lend() -> None:
    """Let every table of AP be filled here if it is large enough."""
    metrics.lent = fill


def fill(scores: dict[int, ClassScores], weights: np.ndarray, ap: np.ndarray) -> metrics.Fill | None:
    """What fills a table; None for a small one, or without numba.

    Args:
        scores: Every class.
        weights: float64 (rows, images).
        ap: The table, (rows, classes by index, thresholds).
    """
    if sum(len(one.images) for one in scores.values()) * len(weights) < COMPILED_FROM:
        return None
    try:
        from .ap_compiled import LANES, average_precision, lanes
    except ImportError:
        return None
    parts = [_arguments(scores[c]) for c in sorted(scores)]
    grid = np.array([len(RECALLS) - 1, RECALLS[1], EPSILON])

    def block(start: int) -> None:
        rows = weights[start : start + metrics.BLOCK]
        blocks = lanes(rows)
        out = np.empty((len(blocks), len(IOU_THRESHOLDS), LANES))
        for index, part in enumerate(parts):
            average_precision(blocks, *part, grid, out)
            by_row = out.transpose(0, 2, 1).reshape(-1, len(IOU_THRESHOLDS))
            ap[start : start + metrics.BLOCK, index] = by_row[: len(rows)]

    return block


def _arguments(scores: ClassScores) -> tuple[np.ndarray, ...]:
    """See ``ap_compiled.average_precision``."""
    right = scores.status == RIGHT
    places = any_column(right)
    last = int(places[-1]) + 1 if len(places) else 0
    counted = scores.status[:last] != IGNORED
    if counted.all():
        counted = counted[:, :0]
    by_threshold = right.take(places, axis=0).T
    starts = np.concatenate([[0], np.cumsum(by_threshold.sum(axis=1))])
    whole = (scores.images[:last], places, by_threshold.nonzero()[1], starts, scores.truths)
    images, places, indices, starts, truths = (np.ascontiguousarray(each, np.int64) for each in whole)
    return images.astype(np.uint32), np.ascontiguousarray(counted), places, indices, starts, truths
