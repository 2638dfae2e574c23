"""The bootstrap: the identity replicate, agreement with a plain loop, and coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metrics_cases import random_case

from yoloquant.evaluation.bootstrap import BootstrapOptions, image_weights, interval
from yoloquant.runtime.core.detections import Detections
from yoloquant.runtime.core.matching import IOU_THRESHOLDS, Matches, Truth
from yoloquant.runtime.core.metrics import ap_table, class_scores


def test_weights_are_resamples_and_repeatable() -> None:
    options = BootstrapOptions(replicates=50, seed=3)
    weights = image_weights(20, options)
    assert weights.shape == (51, 20) and (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 20).all() and (weights == weights.round()).all()
    np.testing.assert_array_equal(weights, image_weights(20, options))
    assert not np.array_equal(weights, image_weights(20, BootstrapOptions(replicates=50, seed=4)))


def test_replicates_equal_a_plain_loop_over_copied_images() -> None:
    found, matches, truths = random_case(11, 9, 7)
    weights = image_weights(9, BootstrapOptions(replicates=15))
    together = ap_table(class_scores(found, matches, truths), weights).map50_95
    for row, value in zip(weights.astype(int), together, strict=True):
        copies = [i for i, count in enumerate(row) for _ in range(count)]
        chosen = [found[i] for i in copies], [matches[i] for i in copies], [truths[i] for i in copies]
        assert ap_table(class_scores(*chosen), np.ones((1, 9))).map50_95[0] == pytest.approx(value, abs=1e-12)


def test_interval_of_a_known_distribution() -> None:
    rng = np.random.default_rng(0)
    result = interval(np.concatenate([[0.5], rng.normal(0.5, 0.1, 20000)]), 0.95)
    assert result.value == 0.5 and result.std == pytest.approx(0.1, rel=0.03)
    assert result.low == pytest.approx(0.5 - 0.196, abs=0.01) and result.high == pytest.approx(0.5 + 0.196, abs=0.01)
    nothing = interval(np.array([0.3, math.nan, math.nan]), 0.95)
    assert (nothing.value, nothing.low, nothing.high, nothing.std) == (0.3, 0.3, 0.3, 0.0)


def _pair(rng: np.random.Generator, images: int) -> tuple[list[Detections], list[Matches], list[Matches], list[Truth]]:
    """Two models on fresh images: three frequent classes; the second model misses a little more and localises worse."""
    found, first, second, truths = [], [], [], []
    for _ in range(images):
        labels = rng.integers(0, 3, 4)
        ease = rng.random()  # what makes both models' results on an image alike
        classes = np.concatenate([labels, rng.integers(0, 3, 3)])
        scores = np.concatenate([0.3 + 0.7 * rng.random(4) * ease, 0.6 * rng.random(3)]).astype(np.float32)
        order = np.argsort(-scores)
        reach = np.concatenate([np.full(4, 3 + 7 * ease) + rng.normal(0, 1.5, 4), np.zeros(3)])
        worse = reach - np.concatenate([rng.random(4) * 2, np.zeros(3)])
        for values, target in ((reach, first), (worse, second)):
            status = np.zeros((7, 4, len(IOU_THRESHOLDS)), dtype=np.uint8)
            status[:, 0] = np.arange(len(IOU_THRESHOLDS)) < values[:, None]
            target.append(Matches(status[order], np.full(7, -1), np.zeros(7)))
        found.append(Detections(np.zeros((7, 4)), scores[order], classes[order]))
        truths.append(Truth(np.zeros((4, 4)), labels, np.zeros(4, dtype=np.int64)))
    return found, first, second, truths


def _drops(rng: np.random.Generator, images: int, options: BootstrapOptions) -> np.ndarray:
    found, first, second, truths = _pair(rng, images)
    weights = image_weights(images, options)
    before = ap_table(class_scores(found, first, truths), weights).map50_95
    return np.asarray(before - ap_table(class_scores(found, second, truths), weights).map50_95)


@pytest.mark.slow
def test_intervals_of_a_map_drop_cover_the_truth() -> None:
    """Fresh samples from a generator whose true drop is known: 95 % intervals hold it about 95 times in 100."""
    rng = np.random.default_rng(0)
    truth = float(np.mean([_drops(rng, 60, BootstrapOptions(replicates=0))[0] for _ in range(400)]))
    assert truth > 0.03
    trials, held = 200, 0
    for trial in range(trials):
        result = interval(_drops(rng, 60, BootstrapOptions(replicates=200, seed=trial)), 0.95)
        held += result.low <= truth <= result.high
    # Binomial: 0.95 +- 0.046 at three standard errors; the percentile interval is known to run a little short.
    assert 0.89 <= held / trials <= 0.996
