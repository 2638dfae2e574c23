"""What TensorRT's plugin ``EfficientNMS_TRT`` returns, as one row per detection."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

OPERATOR, DOMAIN = "EfficientNMS_TRT", "TRT"
"""What the plugin is called in a model, and the domain of ONNX operators that it stands under there."""
NAMES = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
"""Names of its outputs in the models of this project."""


def is_selected(names: "list[str]") -> bool:
    """Whether an engine with outputs of some names ends in the plugin."""
    return set(NAMES) <= set(names)


def rows_of_plugin(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Detections by falling score.

    Args:
        outputs: The plugin's, by name: counts (batch, 1), corners (batch, rows, 4), scores and classes (batch, rows).

    Returns:
        float32 (batch, rows, 6): x1, y1, x2, y2, score, class; zeros behind the last detection, where the plugin
        leaves what was there before.
    """
    count, boxes, scores, classes = (outputs[name] for name in NAMES)
    table = np.concatenate([boxes, scores[..., None], classes[..., None]], axis=2).astype(np.float32)
    table[np.arange(table.shape[1])[None, :] >= count.astype(np.int64)] = 0
    return table
