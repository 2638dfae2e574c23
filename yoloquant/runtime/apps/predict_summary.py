"""What a prediction counted on its way, and how it went in the end."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import SourceError
from ..io.draw import Painter, Rate
from ..io.sources import ImageSource, LiveSource, Source
from ..io.writers import Writer
from ..tasks import TaskSpec
from .pipeline import Ending, FrameResult, RunOutcome, Times

STANDARD_OUTPUT = "-"
REMEMBERED = 10_000
"""Frames whose times are kept for the percentiles, so that a run of weeks takes no more memory."""


@dataclass(frozen=True)
class Summary:
    """How a prediction went.

    Attributes:
        outcome: Frames, dropped frames, seconds, and why it ended.
        found: Detections by class name.
        latency_ms: Percentiles (50, 90, 99) of ``FrameResult.age`` over the last 10,000 frames.
        steps_ms: Median of each step.
        outputs: What was written.
        reconnects: How often a lost source came back.
        unreadable: Names of images that could not be read.
        said_lines: Whether JSON lines were said.
    """

    outcome: RunOutcome
    found: dict[str, int]
    latency_ms: dict[str, float]
    steps_ms: dict[str, float]
    outputs: tuple[str, ...] = ()
    reconnects: int = 0
    unreadable: tuple[str, ...] = ()
    said_lines: bool = False

    @property
    def fps(self) -> float:
        """Frames per second over the whole run."""
        return self.outcome.frames / self.outcome.seconds if self.outcome.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        done = self.outcome
        return {
            "ending": done.ending.value,
            "error": done.error,
            "frames": done.frames,
            "dropped": done.dropped,
            "seconds": round(done.seconds, 3),
            "fps": round(self.fps, 2),
            "latency_ms": self.latency_ms,
            "steps_ms": self.steps_ms,
            "found": self.found,
            "outputs": list(self.outputs),
            "reconnects": self.reconnects,
            "unreadable": list(self.unreadable),
        }

    def __str__(self) -> str:
        """Some lines for people."""
        done = self.outcome
        why = {Ending.END: "the source ended", Ending.LIMIT: "limit reached", Ending.STOPPED: "stopped"}
        lines = [
            f"{done.frames} frames in {done.seconds:.1f} s, {self.fps:.1f} per second; {done.dropped} dropped; "
            f"{why.get(done.ending, 'the source was lost')}"
        ]
        if self.latency_ms:
            lines.append("latency " + ", ".join(f"{k} {v:.1f} ms" for k, v in self.latency_ms.items()))
            lines.append("median  " + ", ".join(f"{k} {v:.1f} ms" for k, v in self.steps_ms.items()))
        if self.found:
            most = sorted(self.found.items(), key=lambda item: -item[1])[:8]
            lines.append("found   " + ", ".join(f"{count} {name}" for name, count in most))
        if self.reconnects:
            lines.append(f"the source was lost and came back {self.reconnects} times")
        if self.unreadable:
            lines.append(f"{len(self.unreadable)} files are no readable images: {', '.join(self.unreadable[:5])}")
        lines += [f"wrote {path}" for path in self.outputs]
        return "\n".join(lines)


class Consumer:
    """Draws, writes and counts; called by the pipeline's last thread."""

    def __init__(self, writers: Sequence[Writer], painter: Painter | None, overlay: bool, task: TaskSpec) -> None:
        self._task = task
        self._writers, self._painter, self._overlay, self._rate = writers, painter, overlay, Rate()
        self.found: Counter[int] = Counter()
        self.ages: deque[float] = deque(maxlen=REMEMBERED)
        self.steps: deque[Times] = deque(maxlen=REMEMBERED)

    def __call__(self, result: FrameResult) -> None:
        """Take one result."""
        times = result.times
        # By the clock of delivery: what comes out, and not what a camera takes in.
        rate = self._rate.tick(time.perf_counter())
        if self._painter is not None:
            self._task.draw(self._painter, result.frame.image, result.detections)
            if self._overlay:
                text = f"{rate:.1f} FPS  {result.age * 1e3:.0f} ms  network {times.inference * 1e3:.1f} ms"
                self._painter.text(result.frame.image, [text])
        # By index; names are looked up once, at the end.
        self.found.update(self._task.counted(result.detections).tolist())
        self.ages.append(result.age)
        self.steps.append(times)
        for writer in self._writers:
            writer.write(result)


def summarize(
    outcome: RunOutcome, consumer: Consumer, names: Sequence[str], source: Source, outputs: tuple[str, ...]
) -> Summary:
    """Put together what a run left behind."""
    latency: dict[str, float] = {}
    steps: dict[str, float] = {}
    if consumer.ages:
        p50, p90, p99 = np.percentile(np.array(consumer.ages) * 1e3, (50, 90, 99)).tolist()
        latency = {"p50": round(p50, 2), "p90": round(p90, 2), "p99": round(p99, 2)}
        # Medians: a pause of the system in one frame would move means of short runs.
        medians = np.median(np.array(consumer.steps) * 1e3, axis=0).tolist()
        steps = dict(zip(Times._fields, (round(m, 2) for m in medians)))
    return Summary(
        outcome,
        {names[k] if k < len(names) else str(k): n for k, n in sorted(consumer.found.items())},
        latency,
        steps,
        tuple(path for path in outputs if path != STANDARD_OUTPUT),
        source.reconnects if isinstance(source, LiveSource) else 0,
        tuple(source.unreadable) if isinstance(source, ImageSource) else (),
        STANDARD_OUTPUT in outputs,
    )


def report(summary: Summary, say: Callable[[str], None]) -> int:
    """Say how it went, as a JSON object where JSON lines were said before.

    Returns:
        The exit code, 0.

    Raises:
        SourceError: The source was lost on the way (exit code 4).
    """
    # Said first: what was found until a source was lost is not lost with it.
    say(json.dumps({"summary": summary.to_dict()}, ensure_ascii=False) if summary.said_lines else str(summary))
    if summary.outcome.ending is Ending.LOST:
        raise SourceError(summary.outcome.error)
    return 0
