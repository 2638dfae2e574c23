from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoloquant.runtime.errors import ArtifactError
from yoloquant.runtime.tensorrt.calibration_cache import dump, load, release_tag, retag

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=20)
SCALES = st.floats(width=32, min_value=2.0**-126, max_value=2.0**100)


def test_format_is_that_of_a_cache_which_tensorrt_wrote() -> None:
    """From the README of NVIDIA's sampleINT8: 3c008912 is 0.00784521 for ``data``, written by TensorRT 7.0."""
    text = "TRT-7000-EntropyCalibration2\ndata: 3c008912\nconv1: 3c88edfc\n"
    scales = load(text)
    assert scales == {"data": pytest.approx(0.0078451, rel=1e-4), "conv1": pytest.approx(0.016715, rel=1e-4)}
    assert dump(scales, "7000") == text


@pytest.mark.parametrize(
    ("version", "tag"),
    [
        ((8, 5, 2, 2), "8502"),
        ((8, 6, 1), "8601"),
        ((8, 4), "8400"),
        ((10, 3, 0, 30), "100300"),
        ((10, 13, 2), "101302"),
    ],
)
def test_tag_of_a_release(version: tuple[int, ...], tag: str) -> None:
    assert release_tag(version) == tag


@given(st.dictionaries(NAMES, SCALES, min_size=1))
def test_scales_survive_bit_by_bit(scales: dict[str, float]) -> None:
    again = load(retag(dump(scales), (10, 3, 0)).decode())
    assert {n: np.float32(s) for n, s in again.items()} == {n: np.float32(s) for n, s in scales.items()}


def test_names_may_hold_colons() -> None:
    assert load(dump({"model.0.act:mul:0": 0.5, "a: b": 0.25})) == {"model.0.act:mul:0": 0.5, "a: b": 0.25}


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_impossible_scale_is_refused(scale: float) -> None:
    with pytest.raises(ArtifactError, match="must be finite and above 0"):
        dump({"x": scale})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "TRT-8502-MinMaxCalibration\nx: 3f800000\n",
        "TRT-8502-EntropyCalibration2\n",
        "TRT-8502-EntropyCalibration2\nx 3f800000\n",
        "TRT-8502-EntropyCalibration2\nx: 3f80\n",
        "TRT-8502-EntropyCalibration2\nx: zzzzzzzz\n",
        "TRT-8502-EntropyCalibration2\nx: 3f800000\nx: 3f800000\n",
        "TRT-8502-EntropyCalibration2\nx: 00000000\n",
        "TRT-8502-EntropyCalibration2\nx: 7fc00000\n",
    ],
)
def test_damaged_cache_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError, match="calibration cache"):
        load(text)
