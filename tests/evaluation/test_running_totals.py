"""Running totals by blocks against all of them."""

from __future__ import annotations

import numpy as np
import pytest

from yoloquant.evaluation import running_totals
from yoloquant.evaluation.running_totals import RunningTotals


@pytest.mark.parametrize("block", [1, 3, 7, 64, 4096])
@pytest.mark.parametrize("count", [1, 2, 63, 64, 500])
def test_the_nearest_is_the_first_of_all(block: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where images have no weight (totals stand still), below the first detection and above the last."""
    monkeypatch.setattr(running_totals, "BLOCK", block)
    monkeypatch.setattr(running_totals, "BLOCKS", 100)  # so that blocks of 1 and 3 grow
    monkeypatch.setattr(running_totals, "ROWS", 16)
    rng = np.random.default_rng(block * 1000 + count)
    weights = rng.poisson(0.7, (40, 9)).astype(np.float64)
    weights[0] = 0
    images = rng.integers(0, 9, count)
    targets = rng.integers(0, count + 4, 40).astype(np.float64) + rng.choice([0.0, 0.5], 40)
    every = np.cumsum(weights[:, images], axis=1)
    expected = np.abs(every - targets[:, None]).argmin(axis=1)
    np.testing.assert_array_equal(RunningTotals(weights, images).nearest(targets), expected)
