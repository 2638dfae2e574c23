"""Random scored detections, for tests of AP and of the bootstrap."""

from __future__ import annotations

import numpy as np

from yoloquant.runtime.core.detections import Detections
from yoloquant.runtime.core.matching import IOU_THRESHOLDS, Matches, Truth

CLASSES = 4


def random_case(seed: int, images: int, crowd: int) -> tuple[list[Detections], list[Matches], list[Truth]]:
    """Random detections whose right ones never outnumber the truths of their class and image."""
    rng = np.random.default_rng(seed)
    found, matches, truths = [], [], []
    for _ in range(images):
        labels = rng.integers(0, CLASSES, rng.integers(0, crowd))
        classes = rng.integers(0, CLASSES, rng.integers(0, 2 * crowd))
        status = np.zeros((len(classes), 4, len(IOU_THRESHOLDS)), dtype=np.uint8)
        for cls in range(CLASSES):
            rows = rng.permutation(np.flatnonzero(classes == cls))[: np.count_nonzero(labels == cls)]
            reach = rng.integers(0, len(IOU_THRESHOLDS) + 1, len(rows))
            status[rows, 0] = np.arange(len(IOU_THRESHOLDS)) < reach[:, None]
        scores = np.sort(rng.random(len(classes)).astype(np.float32))[::-1]
        found.append(Detections(np.zeros((len(classes), 4), np.float32), scores, classes))
        matches.append(Matches(status, np.full(len(classes), -1), np.zeros(len(classes))))
        truths.append(Truth(np.zeros((len(labels), 4)), labels, rng.integers(0, 3, len(labels))))
    return found, matches, truths
