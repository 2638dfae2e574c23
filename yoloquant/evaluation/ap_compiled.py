"""AP of one class for many rows of image weights, as one loop that numba compiles.

The same steps in the same order as in ``runtime.core.metrics``, so that results differ by rounding of a sum alone; but
what lies between two steps stays in the processor's cache, where NumPy writes and reads an array for each. Only the
bootstrap of many images comes here: a device needs neither it nor numba.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

if numba.config.DISABLE_JIT:
    raise ImportError("numba's compiler is switched off (NUMBA_DISABLE_JIT)")

LANES = 16
"""Rows of weights that go through the loops together: what a processor's vector registers hold side by side."""
_MAGIC = 6755399441055744.0  # 1.5 * 2**52: adding and taking it away rounds a float64 to a whole number, halves to even


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # "numpy": a division by zero is no exception, which would keep the loops from being vectorised
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no folder that a cache could be written to
        return numba.njit(nogil=True, error_model="numpy")(function)  # type: ignore[no-any-return]


def lanes(weights: np.ndarray) -> np.ndarray:
    """Rows of weights (rows, images) as float64 (blocks, images, LANES); rows that are missing at the end are 0."""
    rows, images = weights.shape
    padded = np.zeros((-(-rows // LANES) * LANES, images))
    padded[:rows] = weights
    return np.ascontiguousarray(padded.reshape(-1, LANES, images).transpose(0, 2, 1))


@_compiled
def average_precision(
    weights: Any, images: Any, counted: Any, places: Any, right: Any, starts: Any, truths: Any, grid: Any, out: Any
) -> None:
    """AP of a class.

    Args:
        weights: What ``lanes`` returned, or blocks of it.
        images: Image of each detection by falling score, up to the last one that is right, uint32 (n,): of signed
            indices each would be looked at for its sign.
        counted: Whether a detection counts at a threshold, bool (n, thresholds); (n, 0) if all of them count.
        places: Detections that are right at some threshold, int64 (k,).
        right: Indices into ``places`` of those that are right at the first threshold, then at the second ..., int64.
        starts: Where each threshold begins in ``right``, and its end, int64 (thresholds + 1,).
        truths: Image of each truth, int64.
        grid: Number of steps between recalls, their width, and what keeps a division from zero; float64 (3,).
        out: Takes the AP, NaN without truths; float64 (blocks, thresholds, LANES).
    """
    steps, width, epsilon = grid[0], grid[1], grid[2]
    thresholds, kinds, k = len(starts) - 1, max(1, counted.shape[1]), len(places)
    every, hits, envelope = np.empty((k, kinds, LANES)), np.empty((k, LANES)), np.empty((k, LANES))
    total, hit, below = np.empty(LANES), np.empty(LANES), np.empty(LANES)
    run = np.empty((kinds, LANES))
    for block in range(len(weights)):
        row = weights[block]
        total[:] = 0
        for i in truths:
            for c in range(LANES):
                total[c] += row[i, c]
        run[:] = 0
        begin = 0
        for j in range(k):
            i, end = begin, places[j] + 1
            if counted.shape[1] == 0:
                while i + 4 <= end:  # together: each would wait for the total of the one before it
                    one, two, three, four = images[i], images[i + 1], images[i + 2], images[i + 3]
                    for c in range(LANES):
                        run[0, c] += row[one, c] + row[two, c] + row[three, c] + row[four, c]
                    i += 4
                for n in range(i, end):
                    for c in range(LANES):
                        run[0, c] += row[images[n], c]
            else:
                for n in range(i, end):
                    for t in range(kinds):
                        if counted[n, t]:
                            for c in range(LANES):
                                run[t, c] += row[images[n], c]
            begin = end
            every[j] = run
        for t in range(thresholds):
            first, count = starts[t], starts[t + 1] - starts[t]
            kind = t if kinds > 1 else 0
            hit[:] = 0
            for m in range(count):
                j = right[first + m]
                image = images[places[j]]
                for c in range(LANES):
                    hit[c] += row[image, c]
                    hits[m, c] = hit[c]
                    seen = every[j, kind, c]
                    envelope[m, c] = hit[c] / (seen + (seen == 0))
            for m in range(count - 2, -1, -1):
                for c in range(LANES):
                    envelope[m, c] = max(envelope[m, c], envelope[m + 1, c])
            # The trapezoid rule counts the first grid point (recall 0) half, and the last is always 0.
            below[:] = 0.5
            area = out[block, t]
            area[:] = 0
            for m in range(count):
                for c in range(LANES):
                    recall = hits[m, c] / (total[c] + epsilon)
                    nearest = (recall * steps + _MAGIC) - _MAGIC
                    nearest += nearest * width < recall
                    area[c] += (nearest - below[c]) * envelope[m, c]
                    below[c] = nearest
            for c in range(LANES):
                area[c] = area[c] / steps if total[c] > 0 else np.nan
