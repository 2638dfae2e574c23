"""Latency by interleaved rounds: what competes runs in turn, and ratios are taken within a round.

The machine's speed drifts by more than the differences that matter, but hardly within one round.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from yoloquant.runtime.core.runner import Runner

WARMUP = 3


@dataclass(frozen=True)
class Timing:
    """Times of one contender.

    Attributes:
        times_ms: One inference per round.
        runtime: The group that it was timed in.
    """

    runtime: str
    times_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Median over all rounds."""
        return float(np.median(self.times_ms))

    @property
    def p90_ms(self) -> float:
        """90th percentile over all rounds."""
        return float(np.percentile(self.times_ms, 90))


def ratio(mine: Timing, other: Timing) -> float:
    """Median over the rounds of my time divided by the other's in the same round.

    Raises:
        ValueError: They were not timed in the same rounds.
    """
    if mine.runtime != other.runtime:
        raise ValueError(f"{mine.runtime} and {other.runtime} were not timed in the same rounds")
    pairs = zip(mine.times_ms, other.times_ms, strict=True)
    return float(np.median([a / b for a, b in pairs]))


def measure(
    groups: Mapping[str, Mapping[str, Runner]],
    images: Sequence[np.ndarray],
    *,
    rounds: int = 36,
    blocks: int = 3,
    settle_ms: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Timing]:
    """Time contenders in interleaved rounds.

    Only members of one group compete within a round, so that the idle threads of one runtime, which spin for a while,
    do not slow the next. The groups take turns in blocks, so that drift reaches all of them.

    Args:
        groups: Runners by contender name, by runtime.
        images: Letterboxed images, float32 (1, channels, height, width); a round uses one for all.
        rounds: Rounds of each group.
        blocks: Turns that a group's rounds are spread over.
        settle_ms: How long a contender runs before its timed inference, so that it finds its own weights in the caches
            and no other's threads still spinning, as where it runs alone.
        progress: Called after every block with blocks done and in all.

    Returns:
        Times by contender name.
    """
    timings = {name: Timing(runtime) for runtime, runners in groups.items() for name in runners}
    per_block = -(-rounds // blocks)
    done = 0
    for block in range(blocks):
        for runners in groups.values():
            _block(runners, images, range(block * per_block, min((block + 1) * per_block, rounds)), timings, settle_ms)
            done += 1
            if progress:
                progress(done, blocks * len(groups))
    return timings


def _block(
    runners: Mapping[str, Runner],
    images: Sequence[np.ndarray],
    rounds: range,
    timings: Mapping[str, Timing],
    settle_ms: float,
) -> None:
    names = list(runners)
    for name in names:
        for _ in range(WARMUP):
            runners[name].infer(images[0])
    collecting = gc.isenabled()
    gc.disable()
    try:
        for index in rounds:
            image = images[index % len(images)]
            shift = index % len(names)  # nobody always follows the same other
            for name in (*names[shift:], *names[:shift]):
                until = time.perf_counter() + settle_ms / 1e3
                while settle_ms and time.perf_counter() < until:
                    runners[name].infer(image)
                start = time.perf_counter()
                runners[name].infer(image)
                timings[name].times_ms.append((time.perf_counter() - start) * 1e3)
    finally:
        if collecting:
            gc.enable()
