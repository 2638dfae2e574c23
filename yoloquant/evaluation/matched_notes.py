"""A matched confidence as artifacts and bundles state it, where ``predict conf=matched`` finds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..runtime.apps.running import MATCHED_CONF, MATCHED_PER_CLASS
from .results import Comparison


def matched_notes(names: Sequence[str], comparison: Comparison | None) -> dict[str, Any]:
    """What to state of an artifact; empty where nothing was matched.

    Args:
        names: Class names in the model's order.
        comparison: The artifact beside the FP32 model.
    """
    from .compare import class_confidences

    if comparison is None or comparison.matched_conf is None:
        return {}
    conf = comparison.matched_conf.value
    each = class_confidences(names, conf, comparison.matched_conf_per_class)
    return {MATCHED_CONF: round(conf, 4), MATCHED_PER_CLASS: [round(value, 4) for value in each]}
