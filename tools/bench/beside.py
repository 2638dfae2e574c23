"""Our files and Ultralytics' INT8 exports of the same model in turns, in the same runtime: times of the network alone.

Both are opened as anybody's program opens them: ONNX Runtime without the exact sums that only our evaluation asks for
on x86 processors without VNNI, OpenVINO's float operations in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from yoloquant import targets
from yoloquant.errors import YoloquantError
from yoloquant.runtime.backends import BackendOptions
from yoloquant.runtime.core.runner import Runner
from yoloquant.types import ExportedModel, HeadLayout

from .latency import Timing, measure, ratio
from .table import table
from .theirs import TheirExport, load_theirs

HEAD = ("runtime", "ours, ms: median (least)", "Ultralytics, ms: median (least)", "ours / Ultralytics")
OURS, THEIRS = "ours", "Ultralytics"
SETTLE_MS = 100.0
"""How long a file runs before each timed inference: the other one's threads spin for a while."""


@dataclass(frozen=True)
class Pair:
    """What one runtime took for our file and for Ultralytics'.

    Attributes:
        runtime: Name of the target.
        ours: Times of our file.
        theirs: Times of Ultralytics'; None if there are none.
        error: Why there are none.
    """

    runtime: str
    ours: Timing | None = None
    theirs: Timing | None = None
    error: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """The table's row."""
        if self.ours is None or self.theirs is None:
            return (self.runtime, "", " ".join(self.error.split()).replace("|", "/")[:160], "")
        return (self.runtime, _times(self.ours), _times(self.theirs), f"{ratio(self.ours, self.theirs):.2f}")


def time_beside(
    ours: Sequence[ExportedModel],
    theirs: Sequence[TheirExport],
    images: Sequence[np.ndarray],
    *,
    threads: int,
    rounds: int,
    settle_ms: float = SETTLE_MS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """Time every file of ours that Ultralytics has a counterpart of.

    Args:
        ours: Exports of one model.
        theirs: Ultralytics' exports of the same.
        images: Prepared images, float32 (1, channels, height, width).
        threads: Threads of an inference.
        rounds: Inferences of each file.
        settle_ms: How long a file runs before each of them.
        progress: Called after every block with blocks done and in all.

    Returns:
        One result per export of Ultralytics, in its order.
    """
    by_target = {one.target: one for one in ours}
    groups: dict[str, dict[str, Runner]] = {}
    errors: dict[str, str] = {}
    try:
        for other in theirs:
            try:
                groups[other.runtime] = _opened(by_target.get(other.runtime), other, threads)
            except (YoloquantError, OSError, RuntimeError, ValueError) as exc:  # whatever their file's runtime says
                errors[other.runtime] = f"{type(exc).__name__}: {exc}"
        timings = measure(groups, images, rounds=rounds, settle_ms=settle_ms, progress=progress)
    finally:
        for runners in groups.values():
            for runner in runners.values():
                runner.close()
    return [
        Pair(o.runtime, error=errors[o.runtime])
        if o.runtime in errors
        else Pair(o.runtime, *(timings[_label(o.runtime, who)] for who in (OURS, THEIRS)))
        for o in theirs
    ]


def beside_table(pairs: Sequence[Pair]) -> str:
    """The Markdown table."""
    return table(HEAD, [pair.cells for pair in pairs])


def _opened(mine: ExportedModel | None, other: TheirExport, threads: int) -> dict[str, Runner]:
    if mine is None:
        raise ValueError(f"there is no file of ours for {other.runtime}")
    if other.path is None:
        raise ValueError(other.error)
    options = BackendOptions(threads, exact_sums=False, raw=mine.layout is HeadLayout.RAW)
    first = targets.get(mine.target).open(mine, options)
    try:
        second = load_theirs(other, mine.info, threads)
    except Exception:
        first.close()
        raise
    return {_label(other.runtime, OURS): first, _label(other.runtime, THEIRS): second}


def _label(runtime: str, who: str) -> str:
    return f"{runtime}, {who}"


def _times(timing: Timing) -> str:
    return f"{timing.median_ms:.1f} ({min(timing.times_ms):.1f})"
