"""``yoloquant predict``: the runtime's own verb."""

from __future__ import annotations

from ...runtime.apps.keys import PREDICT as KEYS
from ..parser import Call
from ..show import say

__all__ = ["KEYS", "run"]


def run(call: Call) -> int:
    """Detect until the source ends."""
    from ...inference.run_exports import predict_main

    return predict_main(dict(call.given), say)
