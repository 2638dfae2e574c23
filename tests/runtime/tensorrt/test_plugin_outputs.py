"""Four outputs of TensorRT's suppression become one row per detection."""

from __future__ import annotations

import numpy as np

from yoloquant.runtime.tensorrt.plugin_outputs import NAMES, is_selected, rows_of_plugin


def test_rows_end_where_the_plugin_says() -> None:
    """Behind the last detection the plugin leaves what was in its buffers."""
    boxes = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    scores = np.array([[0.9, 0.5, 0.4], [0.8, 0.7, 0.6]], np.float32)
    classes = np.array([[7, 1, 5], [2, 3, 4]], np.int32)
    count = np.array([[1], [3]], np.int32)
    rows = rows_of_plugin(dict(zip(NAMES, (count, boxes, scores, classes), strict=True)))
    assert rows.shape == (2, 3, 6) and rows.dtype == np.float32
    np.testing.assert_array_equal(rows[0, 0], np.array([0, 1, 2, 3, 0.9, 7], np.float32))
    assert not rows[0, 1:].any()
    np.testing.assert_array_equal(rows[1, :, 4:], np.stack([scores[1], classes[1].astype(np.float32)], axis=1))


def test_an_engine_ends_in_the_plugin_if_it_has_its_outputs() -> None:
    assert is_selected([*NAMES]) and is_selected(["output0", *NAMES])
    assert not is_selected(["output0"]) and not is_selected([*NAMES[1:]])
