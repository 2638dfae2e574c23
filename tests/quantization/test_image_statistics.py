"""What images do inside the network: the same figures alone as in the pass that calibrates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from core_models import sample_images, tiny_graph

from yoloquant.errors import CalibrationError
from yoloquant.quantization.calibrate import observe, observed
from yoloquant.quantization.image_statistics import describe, extremes, moments
from yoloquant.quantization.scheme import PORTABLE, derive

PLAN = derive(tiny_graph(), PORTABLE)


def test_they_are_those_of_calibration() -> None:
    images = sample_images(8)
    alone, seen = describe(tiny_graph(), observed([PLAN]), images), observe(tiny_graph(), [PLAN], images).statistics
    assert seen is not None and alone.points == seen.points and len(alone) == len(images)
    for name in ("low", "high", "mean", "deviation", "classes"):
        one, other = np.stack(getattr(alone, name)), np.stack(getattr(seen, name))
        # with gradients convolutions may be other kernels
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=name)
    assert np.stack(alone.deviation).min() > 0 and np.stack(alone.classes).shape[1] == len(tiny_graph().info.names)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_moments_are_numpys(offset: float) -> None:
    values = np.random.default_rng(0).normal(offset, 3, (1, 16, 161, 161)).astype(np.float32)
    x = torch.from_numpy(values)
    wide = values.astype(np.float64)
    expected = (wide.min(), wide.max(), wide.mean(), wide.std())
    assert moments(x, extremes("x", x)) == pytest.approx(expected, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_values_name_the_layer(value: float) -> None:
    image = sample_images(1)[0].copy()
    image[0, 0, 0, 0] = value
    with pytest.raises(CalibrationError, match="NaN or infinite values at images"):
        describe(tiny_graph(), observed([PLAN]), [image])
