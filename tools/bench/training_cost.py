"""Kinds of training side by side: every one in its own process, taking turns, so that ratios survive a busy machine."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Any

import numpy as np

from .training_worker import Job, Turn, serve

FLOAT, NATIVE = "float", "native"
START_S = 1800  # calibration of the native kind included
STEP_S = 600


@dataclass(frozen=True)
class Variant:
    """One kind of training.

    Attributes:
        title: For people.
        qat: Settings of our trainer; None for Ultralytics' own.
        arguments: Of Ultralytics' training, beyond the common ones.
        needs: Module without which it cannot run, and the package that has it.
    """

    title: str
    qat: Mapping[str, str] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, str] | None = None

    @property
    def missing(self) -> str:
        """Package that is not installed; empty if it can run."""
        return self.needs[1] if self.needs and importlib.util.find_spec(self.needs[0]) is None else ""


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        FLOAT: Variant("Ultralytics, float"),
        "distill": Variant("ours, loss=distill", {"loss": "distill", "scheme": "portable"}),
        "detect": Variant("ours, loss=detect", {"loss": "detect", "scheme": "portable"}),
        "both": Variant("ours, loss=both", {"loss": "both", "scheme": "portable"}),
        "tensorrt": Variant("ours, loss=distill scheme=tensorrt", {"loss": "distill", "scheme": "tensorrt"}),
        NATIVE: Variant("Ultralytics, quantize=8", None, {"quantize": 8}, ("modelopt", "nvidia-modelopt")),
    }
)


@dataclass
class Cost:
    """What one kind of training took.

    Attributes:
        rounds: Its turns, one per round.
        error: Why it was not measured; empty if it was.
    """

    rounds: list[Turn] = field(default_factory=list)
    error: str = ""

    @property
    def times(self) -> list[float]:
        """Median seconds of a step, per round."""
        return [float(np.median(turn.seconds)) for turn in self.rounds]

    @property
    def busy(self) -> list[float]:
        """Median processor seconds of a step, per round."""
        return [float(np.median(turn.busy)) for turn in self.rounds]

    @property
    def peak_mb(self) -> float:
        """Most memory in any round."""
        return max(turn.peak_mb for turn in self.rounds)

    @property
    def above_mb(self) -> float:
        """Most memory beyond what the process had before it loaded a model."""
        return self.peak_mb - self.rounds[0].base_mb

    def phases(self) -> dict[str, float]:
        """Median seconds of a step by phase, over all rounds."""
        steps = [phases for turn in self.rounds for phases in turn.phases]
        return {name: float(np.median([s[name] for s in steps])) for name in (steps[0] if steps else {})}


class _Process:
    """A worker and the line to it."""

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")  # nothing of this process is inherited
        ours, theirs = context.Pipe()
        self.connection: Connection = ours
        self.process = context.Process(target=serve, args=(job, theirs), daemon=True)
        self.log = job.log
        self.process.start()
        theirs.close()

    def steps(self, count: int, limit_s: float) -> Turn:
        """Let it take steps.

        Raises:
            RuntimeError: It failed or took too long.
        """
        try:
            self.connection.send(count)
            if not self.connection.poll(limit_s):
                raise RuntimeError(f"no answer after {limit_s:.0f} s; see {self.log}")
            answer = self.connection.recv()
        except (EOFError, OSError):
            raise RuntimeError(f"the process died; see {self.log}") from None
        if isinstance(answer, Turn):
            return answer
        raise RuntimeError(f"{answer}; see {self.log}")

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):  # it may be dead
            self.connection.send(0)
        self.process.join(30)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


@dataclass(frozen=True)
class Rounds:
    """How much is measured.

    Attributes:
        warmup: Steps before the first round.
        steps: Steps of a turn.
        rounds: Turns of everybody.
    """

    warmup: int
    steps: int
    rounds: int


def measure(jobs: Mapping[str, Job], plan: Rounds, progress: Callable[[int, int], None]) -> dict[str, Cost]:
    """Train all jobs in turn.

    Args:
        jobs: By name of their variant; all processes stay until the end, but one works at a time.
        plan: How much is measured.
        progress: Called with rounds done and in all.

    Returns:
        Costs by name; failures are described, not raised.
    """
    costs = {name: Cost() for name in jobs}
    processes: dict[str, _Process] = {}
    try:
        for name, job in jobs.items():
            processes[name] = _Process(job)
            _turn(processes, costs, name, plan.warmup, START_S)
        for cost in costs.values():
            cost.rounds.clear()  # the warm-up
        for index in range(plan.rounds):
            for name in _shifted([n for n in jobs if n in processes], index):
                _turn(processes, costs, name, plan.steps, plan.steps * STEP_S)
            progress(index + 1, plan.rounds)
    finally:
        for process in processes.values():
            process.close()
    return costs


def _shifted(names: Sequence[str], index: int) -> list[str]:
    """Nobody always follows the same other."""
    start = index % max(len(names), 1)
    return [*names[start:], *names[:start]]


def _turn(processes: dict[str, _Process], costs: dict[str, Cost], name: str, steps: int, limit_s: float) -> None:
    try:
        costs[name].rounds.append(processes[name].steps(steps, limit_s))
    except RuntimeError as exc:
        costs[name].error = str(exc)
        processes.pop(name).close()


def same_images(costs: Mapping[str, Cost]) -> bool:
    """Whether everybody that was measured saw the same pixels in the same order."""
    seen = {tuple(i for turn in cost.rounds for i in turn.images) for cost in costs.values() if not cost.error}
    return len(seen) <= 1


def ratios(mine: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Median, smallest and largest of my figure by the other's in the same round."""
    found = [a / b for a, b in zip(mine, other, strict=True)]
    return float(np.median(found)), min(found), max(found)
