"""How far a device may be off: derived for every bundle from how far correct kernels differ on its own inputs.

The same integer file gives slightly different results on different processors, although every one of them is right: a
requantized value that lies halfway between two steps goes up with one kernel and to the even one with another, and a
step at an early layer moves every later value a little. How much that is depends on the model, its ranges and the
images, so it is measured where the bundle is made: its inputs are run once more by other kernels of the same runtime
that follow the same grid by other rules (``BackendOptions.optimize``). A third processor has rules of its own,
so it may be as far from either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..runtime.apps.golden import Tolerances

FACTOR = 2.5
"""How much further apart another processor's kernels may be than two of this one's.

``tools/compare_kernels.py cpu_root=...``: on an emulated Cortex-A76 LiteRT's XNNPACK is 0.0047 (boxes) and 0.034
(scores) off the export machine's for the demonstration model, where XNNPACK and LiteRT's own kernels are 0.0091 and
0.051 apart; for yolo11n at 320 it was 0.0252, where those are 0.014 apart. Red and blue exchanged give 0.050 and 0.47.
"""
TOLERANCES = Tolerances(boxes=0.025, scores=0.2, score=0.15, iou=0.7, agreement=0.9)
"""For what has no second kernels on the export machine, TensorRT's engines: see ``tools/compare_kernels.py``.

Kernels of one runtime on x86-64 differ by at most 0.014 in boxes and 0.117 in scores, and at least 97.8 % of the
detections agree. Red and blue exchanged, or a letterbox six pixels beside its place, give at least 0.042 and 0.30, and
at most 74 % agree; a mild blur at least 0.027 and 0.155.
"""
LEAST = {"boxes": 0.015, "scores": 0.12}
"""Allowed even where this machine's kernels hardly differ: other instruction sets, bfloat16 and older releases were
seen to differ by 0.014 and 0.117 at most, and wrong preprocessing starts at 0.042 and 0.30."""
MOST = {"boxes": 0.04, "scores": 0.25}
"""Just below what wrong preprocessing does; where kernels differ by more, the bundle says so in a note."""


def derive_tolerances(noise: Mapping[str, float] | None) -> Tolerances:
    """Limits of a bundle.

    Args:
        noise: How far other correct kernels are off on the golden inputs, by part (boxes, scores, and what else the
            task predicts) and relative to its spread; None, or nothing but zeros, if there are none.
    """
    # all zero is no proof of exactness: the runtime has no second kernels, or ignored the request
    if noise is None or not any(noise.values()):
        return TOLERANCES
    worst = {kind: max((v for part, v in noise.items() if limited_as(part) == kind), default=0.0) for kind in LEAST}
    # not below what other processors were seen to do, not above what a wrong letterbox does
    return replace(TOLERANCES, **{k: round(min(max(FACTOR * worst[k], LEAST[k]), MOST[k]), 4) for k in LEAST})


def limited_as(part: str) -> str:
    """Which limit holds a part of the outputs: boxes have their own, everything else that of scores."""
    return "boxes" if part == "boxes" else "scores"
