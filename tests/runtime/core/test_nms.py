"""Suppression in numpy gives what Ultralytics' gives: the same rows, in the same order, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yoloquant.runtime.core.nms import MAX_NMS, non_max_suppression


def ultralytics(prediction: np.ndarray, conf: float, iou: float, max_det: int, **options: object) -> np.ndarray:
    """Rows of the host's own function; torchvision must be imported for its exact kernel to be used."""
    import torch
    import torchvision  # noqa: F401

    try:
        from ultralytics.utils.nms import non_max_suppression as host
    except ImportError:  # before 8.4
        from ultralytics.utils.ops import non_max_suppression as host
    with torch.inference_mode():
        found = host(torch.from_numpy(prediction.copy()), conf, iou, max_det=max_det, max_time_img=60.0, **options)
    return np.asarray(found[0].numpy())


def head_output(seed: int, classes: int, anchors: int, *, tied: bool, spread: float = 1.0) -> np.ndarray:
    """A decoded head's output: boxes in clusters, so that many overlap; scores on a coarse grid if ``tied``."""
    rng = np.random.default_rng(seed)
    prediction = np.zeros((1, 4 + classes, anchors), np.float32)
    centres = rng.uniform(0, 640, (2, 12))[:, rng.integers(0, 12, anchors)]
    prediction[0, :2] = (centres + rng.normal(0, 8, (2, anchors))) * spread
    prediction[0, 2:4] = rng.uniform(-2, 120, (2, anchors)) * spread  # a head may even emit negative sizes
    if tied:
        prediction[0, :4] = np.round(prediction[0, :4] / 16) * 16
    scores = rng.uniform(0, 1, (classes, anchors)) ** 4
    prediction[0, 4:] = np.round(scores * 64) / 64 if tied else scores
    return prediction


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.sampled_from([1, 2, 80]),
    anchors=st.sampled_from([1, 9, 150, 300]),
    tied=st.booleans(),
    conf=st.sampled_from([0.0, 0.001, 0.25, 0.5, 1.0]),
    iou=st.sampled_from([0.0, 0.45, 0.7, 1.0]),
    max_det=st.sampled_from([1, 7, 300]),
    multi_label=st.booleans(),
    spread=st.sampled_from([1.0, 40.0]),  # 40: classes are not far enough apart to be told from one another
)
def test_equals_ultralytics(
    seed: int,
    classes: int,
    anchors: int,
    tied: bool,
    conf: float,
    iou: float,
    max_det: int,
    multi_label: bool,
    spread: float,
) -> None:
    prediction = head_output(seed, classes, anchors, tied=tied, spread=spread)
    ours = non_max_suppression(prediction, conf, iou, max_det, multi_label=multi_label)
    theirs = ultralytics(prediction, conf, iou, max_det, multi_label=multi_label)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("max_nms", [1, 50, 400])
def test_equals_ultralytics_beyond_the_limit_of_candidates(max_nms: int) -> None:
    prediction = head_output(3, 80, 300, tied=False)
    scores = prediction[0, 4:]  # all different, because torch leaves ties in no particular order
    scores[:] = np.random.default_rng(0).permutation(scores.size).reshape(scores.shape) / scores.size
    ours = non_max_suppression(prediction, 0.001, 0.7, 300, multi_label=True, max_nms=max_nms)
    np.testing.assert_array_equal(ours, ultralytics(prediction, 0.001, 0.7, 300, multi_label=True, max_nms=max_nms))


def test_its_limit_of_candidates_is_the_hosts() -> None:
    import inspect

    from ultralytics.utils import nms

    assert inspect.signature(nms.non_max_suppression).parameters["max_nms"].default == MAX_NMS


def test_ties_beyond_the_limit_are_broken_by_anchor() -> None:
    prediction = np.zeros((1, 5, 4), np.float32)
    prediction[0, :4] = [[10, 110, 210, 310], [10] * 4, [8] * 4, [8] * 4]
    prediction[0, 4] = 0.5
    found = non_max_suppression(prediction, 0.1, 0.7, 300, max_nms=2)
    np.testing.assert_array_equal(found[:, 0], [6, 106])


def test_nothing_above_the_threshold() -> None:
    assert non_max_suppression(np.zeros((1, 7, 20), np.float32), 0.25, 0.7, 300).shape == (0, 6)
    assert non_max_suppression(np.zeros((1, 7, 0), np.float32), 0.25, 0.7, 300).shape == (0, 6)
