"""Paired bootstrap by image.

Both models are scored on the same resampled images, so what the images contribute to both cancels in the difference.
An image is the unit: its boxes are not independent of each other.

Two properties of AP matter here. A class whose images were not drawn vanishes from a replicate, as it would from a
new sample; that is part of the variance, so replicates average over the classes that they hold (smooth weights that
keep every class, the Bayesian bootstrap, gave half the width that repeated sampling shows). And a resample holds
copies, which biases AP: replicates do not scatter around the estimate. The interval is therefore the percentile
interval of the replicates, moved so that their mean is the estimate. On yolo11n's detections on 256 COCO images,
drawn 128 at a time (50 trials, so +-3 to 5 points), 95 % intervals held the truth in 94-96 % (mAP drop) and 90-94 %
(fidelity) of all cases; percentiles that were not moved did in 94-96 % and 84-92 %. With 64 images they run shorter
still, about 84-94 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import ap_loops
from .results import Interval

ap_loops.lend()


@dataclass(frozen=True)
class BootstrapOptions:
    """How intervals are computed.

    Attributes:
        replicates: Number of resamples.
        level: Confidence level of the two-sided interval.
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
    # Seeded: the same images and results must give the same verdict again.
    rng = np.random.default_rng(options.seed)
    # counts instead of drawn indices: weights enter AP directly, and no image has to be scored twice
    drawn = rng.multinomial(images, np.full(images, 1 / images), size=options.replicates)
    return np.concatenate([np.ones((1, images)), drawn.astype(np.float64)])


def interval(values: np.ndarray, level: float) -> Interval:
    """Percentile interval of a statistic, its replicates moved so that their mean is the estimate.

    Args:
        values: The estimate, followed by its replicates; replicates that are not finite are left out.
        level: Confidence level.
    """
    estimate, replicates = float(values[0]), values[1:]
    replicates = replicates[np.isfinite(replicates)]
    # No spread can be told of so few, and a gate does not trust them (`min_replicates`).
    if len(replicates) < 2:
        return Interval(estimate, estimate, estimate, level, 0.0)
    moved = replicates - replicates.mean() + estimate
    low, high = np.quantile(moved, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level, float(replicates.std(ddof=1)))
