"""Running totals of image weights over detections, of which only the places where they pass a value are wanted."""

from __future__ import annotations

import numpy as np

BLOCK = 2048
"""Detections whose running totals are looked at one by one; totals of all others come by the block."""
BLOCKS = 512
"""Most blocks; with more detections than fill them, blocks are larger."""
ROWS = 128
"""Rows of weights that are looked at together."""


class RunningTotals:
    """How much weight the first detections have together, for every row of image weights.

    All of them would be rows times detections of float64, gigabytes for thousands of images. Totals never fall, so the
    block in which one passes a value is known from the totals at the blocks' ends.

    Args:
        weights: Not negative, float64 (rows, images).
        images: Image of each detection, (n,).
    """

    def __init__(self, weights: np.ndarray, images: np.ndarray) -> None:
        self._weights, self._images = weights, images
        self._block = max(BLOCK, -(-len(images) // BLOCKS))
        blocks, many = -(-len(images) // self._block), weights.shape[1]
        held = np.bincount(np.arange(len(images)) // self._block * many + images, minlength=blocks * many)
        self._ends = np.cumsum(weights @ held.reshape(blocks, many).T.astype(np.float64), axis=1)

    def nearest(self, targets: np.ndarray) -> np.ndarray:
        """Index of the detection whose total comes nearest to a target, the first of equally near ones, per row.

        Args:
            targets: A value for each row, (rows,).
        """
        starts = range(0, len(targets), ROWS)
        parts = [self._nearest(np.arange(start, min(start + ROWS, len(targets))), targets) for start in starts]
        return np.concatenate(parts)

    def _nearest(self, rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
        wanted = targets[rows]
        after, above, below = self._first(rows, wanted, strict=True)
        before, _, _ = self._first(rows, below, strict=False)
        # Nothing lies below the target where the first detection alone is above it.
        lower = (after > 0) & (np.abs(below - wanted) <= np.abs(above - wanted))
        return np.where(lower, before, after)

    def _first(
        self, rows: np.ndarray, values: np.ndarray, *, strict: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the total first is above a value, or at it too if not strict; the total there and the one before it.

        Where it never is: one behind the last detection, infinity, and the total of all.
        """
        reached = np.greater if strict else np.greater_equal
        one, count, ends = np.arange(len(rows)), len(self._images), self._ends[rows]
        block = ends.shape[1] - reached(ends, values[:, None]).sum(axis=1)
        at = block[:, None] * self._block + np.arange(self._block)
        each = np.where(at < count, self._weights[rows[:, None], self._images[np.minimum(at, count - 1)]], 0.0)
        start = np.where(block > 0, ends[one, block - 1], 0.0)
        totals = np.cumsum(each, axis=1) + start[:, None]
        found = reached(totals, values[:, None])
        inside = found.argmax(axis=1)
        is_there = found[one, inside]
        here = np.where(is_there, totals[one, inside], np.inf)
        before = np.where(is_there, np.where(inside > 0, totals[one, inside - 1], start), ends[:, -1])
        return np.where(is_there, block * self._block + inside, count), here, before
