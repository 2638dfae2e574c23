"""Loops over one video taking turns, and what their times say."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from .realtime_worker import OURS, PURE, SHARED, THEIRS, Job, Pass, serve

OVERHEAD_GOAL, SPEED_GOAL = 1.25, 1.3
KINDS = (PURE, SHARED, OURS, THEIRS)
_ANSWER_S = 900.0


@dataclass
class Row:
    """One artifact.

    Attributes:
        name: Its target.
        passes: Every pass, by kind; the same number of each.
        error: Why a loop failed.
    """

    name: str
    passes: dict[str, list[Pass]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    error: str = ""

    def ratio(self, mine: str, other: str, cpu: bool = False) -> float | None:
        """Median over the rounds of one kind's time for a frame divided by another's."""
        pairs = zip(self.passes[mine], self.passes[other], strict=True)
        found = [
            (a.cpu if cpu else a.seconds) / a.frames / ((b.cpu if cpu else b.seconds) / b.frames) for a, b in pairs
        ]
        return median(found) if found else None

    @property
    def overhead(self) -> float | None:
        """Our loop's time over that of inference alone, by as many workers: throughput against throughput."""
        return self.ratio(OURS, SHARED)

    @property
    def single_overhead(self) -> float | None:
        """Our loop's time over that of inference alone, one after the other with all threads."""
        return self.ratio(OURS, PURE)

    @property
    def speed(self) -> float | None:
        """Our frames per second over Ultralytics'."""
        return self.ratio(THEIRS, OURS)

    def milliseconds(self, kind: str, cpu: bool = False) -> float:
        """Median time of a frame."""
        return median((p.cpu if cpu else p.seconds) / p.frames for p in self.passes[kind]) * 1e3

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "name": self.name,
            "error": self.error,
            "overhead": self.overhead,
            "overhead_over_single": self.single_overhead,
            "speed": self.speed,
            "cpu_overhead": self.ratio(OURS, SHARED, cpu=True),
            "cpu_against_ultralytics": self.ratio(THEIRS, OURS, cpu=True),
            "passes": {kind: [asdict(p) for p in passes] for kind, passes in self.passes.items()},
        }


class Loop:
    """A process that makes passes."""

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(job, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def make(self, kind: str) -> Pass:
        """Make one pass.

        Raises:
            RuntimeError: It failed.
        """
        self._connection.send(kind)
        answer: Pass = self._receive()
        return answer

    def _receive(self) -> Any:
        try:
            if not self._connection.poll(_ANSWER_S):
                raise RuntimeError(f"no answer in {_ANSWER_S:.0f} s")
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(10)
            raise RuntimeError(f"its process ended with code {self._process.exitcode}") from None
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()


def compare(jobs: Mapping[tuple[str, bool], Job], rounds: int, progress: Callable[[int, int, str], None]) -> list[Row]:
    """Let every artifact's loops take turns.

    Args:
        jobs: By artifact and whether they are Ultralytics'.
        rounds: Passes of each loop.
        progress: Called before every artifact's round.

    Returns:
        What was measured.
    """
    rows = {name: Row(name) for name, _ in jobs}
    rng = random.Random(0)
    for place, (name, row) in enumerate(rows.items()):
        loops: dict[bool, Loop] = {}
        try:
            for theirs in (False, True):
                loops[theirs] = Loop(jobs[name, theirs])
            for index in range(rounds):
                progress(place * rounds + index, len(rows) * rounds, name)
                for kind in rng.sample(KINDS, len(KINDS)):
                    row.passes[kind].append(loops[kind == THEIRS].make(kind))
        except RuntimeError as exc:
            row.error = str(exc)
            shortest = min(len(p) for p in row.passes.values())
            row.passes = {kind: passes[:shortest] for kind, passes in row.passes.items()}
        finally:
            for loop in loops.values():
                loop.close()
    progress(len(rows) * rounds, len(rows) * rounds, "done")
    return list(rows.values())


_HEAD = (
    *("artifact", "workers x threads", "pure inference ms: one / workers", "our loop ms", "Ultralytics' ms", "our FPS"),
    *("our loop / pure of the workers", "our loop / pure of one", "our FPS / theirs"),
    *("CPU ms pure: one / workers / ours / theirs", "boxes ours / theirs"),
)


def table(environment: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The results as Markdown."""
    env = environment
    lines = [
        f"# Real-time loop: {env['model']} at {env['imgsz']} px",
        "",
        f"{env['frames']} frames of {env['size'][0]} x {env['size'][1]} ({env['codec']}) from {env['images']} images "
        f"of {env['data']}, conf {env['conf']}, {env['threads']} threads, {env['rounds']} rounds, on {env['cpu']} "
        f"({len(env['affinity']) or env['cores']} cores, load average {env['load']:.1f} before and "
        f"{env['load_after']:.1f} after). A loop reads, preprocesses, infers, selects and draws; milliseconds are per "
        "frame, medians over the rounds, in which the loops take turns; ratios are medians of those within a round. "
        "Pure inference is the network alone on prepared frames: one inference after the other with all threads, and "
        "as many side by side as our loop has workers, which share the threads. "
        f"Goals: our loop at most {OVERHEAD_GOAL} of pure inference, at least {SPEED_GOAL} times their FPS. Float "
        f"operations of our OpenVINO: {env['precision']}; Ultralytics leaves that to OpenVINO.",
        "",
        f"| {' | '.join(_HEAD)} |",
        f"|---|{'---:|' * (len(_HEAD) - 1)}",
    ]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    overhead, single, speed = row.overhead, row.single_overhead, row.speed
    if overhead is None or single is None or speed is None:
        return (row.name, f"failed: {row.error}"[:200].replace("|", "/"), *[""] * (len(_HEAD) - 2))
    times = {kind: row.milliseconds(kind) for kind in KINDS}
    ours, theirs = row.passes[OURS][-1], row.passes[THEIRS][-1]
    return (
        row.name,
        f"{len(ours.shares)} x {'/'.join(str(n) for n in sorted(set(ours.shares)))}",
        f"{times[PURE]:.1f} / {times[SHARED]:.1f}",
        f"{times[OURS]:.1f}",
        f"{times[THEIRS]:.1f}",
        f"{1e3 / times[OURS]:.1f}",
        f"{overhead:.2f}",
        f"{single:.2f}",
        f"{speed:.2f}",
        " / ".join(f"{row.milliseconds(kind, cpu=True):.1f}" for kind in KINDS),
        f"{ours.boxes} / {theirs.boxes}",
    )
