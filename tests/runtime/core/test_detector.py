"""From an image to detections in its own pixels."""

from __future__ import annotations

import numpy as np
import pytest
from core_fakes import FakeBackend
from hypothesis import given, settings
from hypothesis import strategies as st

from yoloquant.runtime.core.detections import PREDICT, Selection
from yoloquant.runtime.core.detector import Detector
from yoloquant.runtime.core.letterbox import place
from yoloquant.runtime.core.model_info import HeadLayout, ModelInfo, Task
from yoloquant.runtime.errors import TargetError, UsageError
from yoloquant.runtime.tasks import spec_of

INFO = ModelInfo(Task.DETECT, ("a", "b", "c"), (64, 64))


def output(rows: list[tuple[float, ...]]) -> np.ndarray:
    """Rows of x, y, w, h and three scores as a head's output."""
    return np.array(rows, np.float32).T[None]


def test_boxes_come_back_in_pixels_of_the_image() -> None:
    # a 100 x 200 image in a 64 x 64 input is 32 x 64, 16 rows below the top
    backend = FakeBackend(output=output([(32, 32, 16, 8, 0.1, 0.9, 0.3), (60, 20, 40, 40, 0.4, 0, 0)]))
    with Detector(backend) as detector:
        found = detector(np.zeros((100, 200, 3), np.uint8))
    assert backend.closed
    np.testing.assert_allclose(found.xyxy, [[75, 37.5, 125, 62.5], [125, 0, 200, 75]])
    np.testing.assert_array_equal(found.class_id, [1, 0])
    np.testing.assert_array_equal(found.confidence, np.array([0.9, 0.4], np.float32))


def test_one_class_per_box_unless_asked() -> None:
    backend = FakeBackend(output=output([(32, 32, 16, 8, 0.1, 0.9, 0.3)]))
    detector = Detector(backend)
    assert len(detector(np.zeros((64, 64, 3), np.uint8))) == 1
    assert len(detector.select(backend.run(detector.preprocess(np.zeros((64, 64, 3), np.uint8))[0]), Selection())) == 3


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(10, 2000), st.integers(10, 2000)),
    imgsz=st.sampled_from([(64, 64), (640, 640), (480, 640)]),
    seed=st.integers(0, 1000),
)
def test_boxes_make_the_round_trip(size: tuple[int, int], imgsz: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    where = place(size, imgsz)
    sizes = rng.uniform(0.05, 0.5, (20, 2))
    centres = rng.uniform(sizes / 2, 1 - sizes / 2)
    labels = np.concatenate([centres, sizes], axis=1).astype(np.float32)
    back = where.to_original(where.to_input(labels))
    pixels = np.array([size[1], size[0]], np.float32)
    wanted = np.concatenate([(centres - sizes / 2) * pixels, (centres + sizes / 2) * pixels], axis=1)
    np.testing.assert_allclose(back, wanted, atol=2e-3 * max(size) / min(imgsz) + 1e-3)


def test_an_end_to_end_head_is_only_thresholded() -> None:
    rows = np.array([[[0, 0, 10, 10, 0.9, 2], [0, 0, 10, 10, 0.8, 2], [0, 0, 5, 5, 0.1, 1]]], np.float32)
    found = spec_of(Task.DETECT).select((rows,), HeadLayout.END2END, INFO, PREDICT)
    np.testing.assert_array_equal(found.confidence, np.array([0.9, 0.8], np.float32))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 9, 8), np.float32), "needs .1, 7, anchors"),
        (np.full((1, 7, 8), np.nan, np.float32), "NaN or infinite"),
        (np.full((1, 7, 8), np.inf, np.float32), "NaN or infinite"),
    ],
)
def test_broken_outputs_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Detector(FakeBackend(output=array))(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize("values", [{"conf": -0.1}, {"conf": 1.5}, {"iou": 2}, {"max_det": 0}, {"conf": float("nan")}])
def test_thresholds_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="out of range"):
        Selection(**values)  # type: ignore[arg-type]


def test_the_defaults_of_prediction_are_ultralytics() -> None:
    from ultralytics.cfg import get_cfg

    assert Selection(conf=0.25, iou=get_cfg().iou, max_det=get_cfg().max_det, multi_label=False) == PREDICT
