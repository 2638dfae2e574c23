"""What the best epoch is chosen by counts confidences that move, which a ranking does not see."""

from __future__ import annotations

import numpy as np
import pytest

from yoloquant.runtime.core.detections import Detections
from yoloquant.training.qat.history import EpochScores
from yoloquant.training.qat.scores import confidence_shift, fidelity


def found(scores: list[float], offset: float = 0.0) -> Detections:
    boxes = np.array([[i * 50 + offset, 10, i * 50 + 40 + offset, 60] for i in range(len(scores))], np.float32)
    return Detections(boxes.reshape(-1, 4), np.array(scores, np.float32), np.zeros(len(scores), np.int64))


def test_shrunk_confidences_cost_no_fidelity_but_shift() -> None:
    reference = [found([0.9, 0.6, 0.3]), found([0.8])]
    shrunk = [found([0.8, 0.5, 0.2]), found([0.7])]
    assert fidelity(shrunk, reference) == pytest.approx(fidelity(reference, reference))
    assert confidence_shift(shrunk, reference) == pytest.approx(-0.1, abs=1e-6)
    assert confidence_shift(reference, reference) == 0


def test_only_pairs_with_the_float_models_confident_ones_count() -> None:
    assert confidence_shift([found([0.9, 0.1])], [found([0.9, 0.2])]) == 0  # 0.2 is not confident
    assert confidence_shift([found([0.9], offset=500)], [found([0.9])]) == 0  # nothing matches
    assert confidence_shift([], []) == 0


def test_the_log_says_what_selects() -> None:
    start = EpochScores(0, {"metrics/mAP50-95(B)": 0.4}, None, 0.95, 0.95 - 0.04, -0.04)
    better = EpochScores(1, {"metrics/mAP50-95(B)": 0.4}, None, 0.94, 0.94 - 0.01, 0.01)
    assert better.fitness > start.fitness and better.fidelity is not None and start.fidelity is not None
    assert "confidence shift +0.0100 (selected by fidelity - |shift|: 0.9300, calibrated 0.9100)" in better.line(start)
    assert better.metrics()["confidence_shift"] == 0.01
    by_map = EpochScores(1, {"metrics/mAP50-95(B)": 0.4}, None, 0.94, 0.4, 0.01)
    assert "selected by fitness: 0.4000" in by_map.line(start)
