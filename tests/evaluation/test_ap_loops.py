"""Compiled loops against NumPy, which is held against Ultralytics."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from metrics_cases import random_case

from yoloquant.evaluation import ap_loops
from yoloquant.runtime.core import metrics
from yoloquant.runtime.core.metrics import ap_table, class_scores


@pytest.mark.parametrize("size", [None, 0])
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_compiled_loops_give_the_same(size: int | None, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where detections are ignored, a resample holds no truth of a class, or rows do not fill the last lanes."""
    pytest.importorskip("numba", reason="the compiled loops need numba")
    found, matches, truths = random_case(11, 30, 9)
    scores = class_scores(found, matches, truths, size=size)
    weights = np.random.default_rng(rows).integers(0, 3, (rows, 30)).astype(float)
    weights[-1] = 0
    weights[-1, 0] = 1
    plain = ap_table(scores, weights).ap
    assert np.isnan(plain).any() or rows == 1
    monkeypatch.setattr(ap_loops, "COMPILED_FROM", 0)
    monkeypatch.setattr(metrics, "lent", ap_loops.fill)
    monkeypatch.setattr(metrics, "BLOCK", 16)
    monkeypatch.setattr(metrics, "_by_numpy", None)
    np.testing.assert_allclose(ap_table(scores, weights).ap, plain, atol=1e-12)


@pytest.mark.parametrize("size", [None, 0])
def test_weights_that_are_no_whole_numbers(size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="the compiled loops need numba")
    scores = class_scores(*random_case(11, 30, 9), size=size)
    weights = np.random.default_rng(3).random((5, 30))
    plain = ap_table(scores, weights).ap
    monkeypatch.setattr(ap_loops, "COMPILED_FROM", 0)
    monkeypatch.setattr(metrics, "lent", ap_loops.fill)
    np.testing.assert_allclose(ap_table(scores, weights).ap, plain, atol=1e-12)


def test_small_tables_import_nothing() -> None:
    found, matches, truths = random_case(11, 30, 9)
    assert ap_loops.fill(class_scores(found, matches, truths), np.ones((1001, 30)), np.zeros(0)) is None


def test_the_bootstrap_lends_them() -> None:
    import_module("yoloquant.evaluation.bootstrap")
    assert metrics.lent is ap_loops.fill
