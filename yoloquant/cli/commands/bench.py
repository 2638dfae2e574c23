"""``yoloquant bench``: the runtime's own verb."""

from __future__ import annotations

from ...runtime.apps.keys import BENCH as KEYS
from ..parser import Call
from ..show import say

__all__ = ["KEYS", "run"]


def run(call: Call) -> int:
    """Measure exports that take turns."""
    # imported when it runs: --help needs no runtime
    from ...inference.run_exports import bench_main

    return bench_main(dict(call.given), say)
