"""AP equals Ultralytics', for any detections and weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics_cases import random_case

from yoloquant.runtime.core.detections import Detections
from yoloquant.runtime.core.matching import IGNORED, RIGHT, Matches, Truth
from yoloquant.runtime.core.metrics import (
    RECALLS,
    _Sums,
    ap_table,
    class_scores,
    grid_below,
    per_size_map,
    stable_order,
)


def ultralytics_order(confidence: np.ndarray) -> np.ndarray:
    """As its validator sorts: not stable, so that ties fall as the processor has it."""
    return np.argsort(-confidence)


def _ultralytics_ap(
    found: list[Detections], matches: list[Matches], truths: list[Truth]
) -> tuple[np.ndarray, np.ndarray]:
    from ultralytics.utils.metrics import ap_per_class

    result = ap_per_class(
        np.concatenate([m.status[:, 0] == RIGHT for m in matches]),
        np.concatenate([f.confidence for f in found]),
        np.concatenate([f.class_id for f in found]),
        np.concatenate([t.classes for t in truths]),
    )
    return result[6], result[5]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_ap_equals_ultralytics(seed: int, images: int, crowd: int) -> None:
    found, matches, truths = random_case(seed, images, crowd)
    table = ap_table(class_scores(found, matches, truths, order=ultralytics_order), np.ones((1, images)))
    if sum(len(t.classes) for t in truths) == 0:
        assert table.classes.size == 0 and table.map50_95[0] == 0
        return
    classes, ap = _ultralytics_ap(found, matches, truths)
    np.testing.assert_array_equal(table.classes, classes)
    np.testing.assert_allclose(table.ap[0], ap, atol=1e-12)
    assert table.map50_95[0] == pytest.approx(ap.mean(), abs=1e-12)
    assert table.map50[0] == pytest.approx(ap[:, 0].mean(), abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 3), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_a_weight_is_a_number_of_copies(seed: int, counts: list[int]) -> None:
    """An image of weight w counts like w copies of it: what makes weights a bootstrap."""
    found, matches, truths = random_case(seed, len(counts), 6)
    table = ap_table(class_scores(found, matches, truths), np.array([counts], dtype=np.float64))
    copies = [i for i, count in enumerate(counts) for _ in range(count)]
    if not copies or sum(len(truths[i].classes) for i in copies) == 0:
        assert np.isnan(table.ap).all()
        return
    classes, ap = _ultralytics_ap([found[i] for i in copies], [matches[i] for i in copies], [truths[i] for i in copies])
    present = ~np.isnan(table.ap[0, :, 0])
    np.testing.assert_array_equal(table.classes[present], classes)
    np.testing.assert_allclose(table.ap[0][present], ap, atol=1e-12)
    assert table.map50_95[0] == pytest.approx(ap.mean(), abs=1e-12)


def test_rows_of_weights_are_independent_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    found, matches, truths = random_case(3, 10, 8)
    scores = class_scores(found, matches, truths)
    weights = np.random.default_rng(0).integers(0, 4, (7, 10)).astype(float)
    together = ap_table(scores, weights).ap
    for name, value in (("BLOCK", 3), ("ELEMENTS", 1), ("_FEW", 0)):
        monkeypatch.setattr(f"yoloquant.runtime.core.metrics.{name}", value)
        np.testing.assert_allclose(together, ap_table(scores, weights).ap, atol=1e-12)
    for i, row in enumerate(weights):
        np.testing.assert_allclose(together[i], ap_table(scores, row[None]).ap[0], atol=1e-12)


def test_ignored_detections_count_neither_way() -> None:
    found, matches, truths = random_case(5, 8, 6)
    status = [m.status.copy() for m in matches]
    for s in status:
        s[:, 1] = s[:, 0]
    everything = [Truth(t.boxes, t.classes, np.zeros(len(t.classes), dtype=np.int64)) for t in truths]
    same = [Matches(s, m.partner, m.overlap) for s, m in zip(status, matches, strict=True)]
    plain = ap_table(class_scores(found, same, everything), np.ones((1, 8))).map50_95[0]
    assert per_size_map(found, same, everything) == {"small": pytest.approx(plain), "medium": None, "large": None}
    # Wrong detections of small size become ignored: precision can only rise.
    ignoring = [
        Matches(np.where(s == 0, IGNORED, s).astype(np.uint8), m.partner, m.overlap)
        for s, m in zip(status, matches, strict=True)
    ]
    better = per_size_map(found, ignoring, everything)["small"]
    assert better is not None and better > plain
    recall = sum((s[:, 1] == RIGHT).sum() for s in status)
    assert recall > 0


def test_recalls_below_are_counted_as_a_search_would() -> None:
    """Also where a recall is a grid point, as right/total of a hundred objects is."""
    total = np.repeat(np.arange(1, 301), 301)
    recall = np.minimum(np.tile(np.arange(301), 300), total) / total
    np.testing.assert_array_equal(grid_below(recall), np.searchsorted(RECALLS, recall, side="left"))


def test_ignored_detections_count_neither_way_in_resamples() -> None:
    """A row alone and a row among others go through different sums."""
    found, matches, truths = random_case(7, 9, 6)
    for m in matches:
        m.status[:, 1] = np.where(np.random.default_rng(1).random(m.status[:, 1].shape) < 0.3, IGNORED, m.status[:, 0])
    weights = np.random.default_rng(2).integers(0, 3, (5, 9)).astype(float)
    scores = class_scores(found, matches, truths, size=0)
    together = ap_table(scores, weights).ap
    for i, row in enumerate(weights):
        np.testing.assert_allclose(together[i], ap_table(scores, row[None]).ap[0], atol=1e-12)


def test_classes_without_detections_score_zero() -> None:
    truth = Truth(np.zeros((2, 4)), np.array([1, 1]), np.zeros(2, dtype=np.int64))
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64))
    empty = Matches(np.zeros((0, 4, 10), dtype=np.uint8), np.zeros(0, dtype=np.int64), np.zeros(0))
    scores = class_scores([nothing], [empty], [truth])
    assert ap_table(scores, np.ones((1, 1))).ap.tolist() == [[[0.0] * 10]]


def test_ties_keep_the_order_of_the_images() -> None:
    confidence = np.repeat(np.float32([0.5, 0.25, 0.75]), 100)
    order = stable_order(confidence)
    assert order.tolist() == [*range(200, 300), *range(100), *range(100, 200)]


@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_totals_where_every_image_counts_once(ignored: float) -> None:
    """Counted instead of added up, and the same."""
    draw = np.random.default_rng(0)
    counted = draw.random((500, 3)) >= ignored if ignored else None
    sums = _Sums(draw.integers(0, 20, 500), np.array([0, 7, 8, 300, 499]), counted)
    once, twice = sums(np.ones((20, 1))), sums(np.ones((20, 2)))
    assert once.shape == (5, 3 if ignored else 1, 1)
    np.testing.assert_array_equal(once, twice[..., :1])
    np.testing.assert_array_equal(sums(np.full((20, 1), 2.0)), 2 * once)
