"""Paired bootstrap by image.

Both models are scored on the same resampled images, so what the images contribute to both cancels in the difference.
An image is the unit: its boxes are not independent of each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .results import Interval


@dataclass(frozen=True)
class BootstrapOptions:
    """How intervals are computed.

    Attributes:
        replicates: Number of resamples.
        level: Confidence level of the two-sided percentile interval.
        seed: Seed of the resampling.
    """

    replicates: int = 1000
    level: float = 0.95
    seed: int = 0


def image_weights(images: int, options: BootstrapOptions) -> np.ndarray:
    """Weights of each image in each replicate; row 0 is the sample itself (all ones).

    Returns:
        float64 (1 + replicates, images); every row sums to the number of images.
    """
    rng = np.random.default_rng(options.seed)
    drawn = rng.multinomial(images, np.full(images, 1 / images), size=options.replicates)
    return np.concatenate([np.ones((1, images)), drawn.astype(np.float64)])


def interval(values: np.ndarray, level: float) -> Interval:
    """Percentile interval of a statistic.

    Args:
        values: The estimate, followed by its replicates; replicates that are not finite are left out.
        level: Confidence level.
    """
    estimate, replicates = float(values[0]), values[1:]
    replicates = replicates[np.isfinite(replicates)]
    if len(replicates) < 2:
        return Interval(estimate, estimate, estimate, level, 0.0)
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level, float(replicates.std(ddof=1)))
