"""Latency of an artifact beside float models in the same runtime, measured as the verb ``bench`` does.

Runtimes and their threads disturb each other in one process: the same OpenVINO file took 29.7 ms beside the others and
18.0 ms alone. So each model runs in a process of its own, once it has warmed up, and the two take turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np

from ..runtime.apps.bench import INFERENCE, BenchOptions, Taken, take_turns
from ..runtime.apps.running import Running
from ..runtime.core.detections import PREDICT, Detections
from ..runtime.core.detector import Detector
from ..runtime.core.letterbox import Letterbox
from ..runtime.core.runner import Runner
from ..runtime.tasks import spec_of
from ..targets.base import Target
from ..types import ExportedModel
from .results import Interval, Latency

# Many short rounds: a ratio is taken within each, and how they scatter says how quiet the machine was.
OPTIONS = BenchOptions(rounds=10, runs=8, warmup=8)
# Where rounds agree half of them are enough for a report: timing is most of what a second run takes.
REPORTED = replace(OPTIONS, enough=0.05)
SPREAD = 0.8
"""Share of the rounds that a spread covers: from the 10th to the 90th percentile."""


@dataclass(frozen=True)
class Timing:
    """What was measured of one artifact.

    Attributes:
        latency: Its own time; None if it could not be measured.
        ratio: Its time divided by the fastest float model's, over rounds; None without a float model.
        note: Why something is missing.
        against: Precision of that float model.
    """

    latency: Latency | None = None
    ratio: Interval | None = None
    note: str = ""
    against: str = ""


@dataclass(frozen=True)
class ExportOpener:
    """Loads an artifact in the process that measures it; survives pickling.

    Attributes:
        exported: The artifact.
        running: Its threads.
    """

    exported: ExportedModel
    running: Running

    def __call__(self) -> Detector:
        """Load it."""
        # In the process that measures, which has just been started and holds nothing yet.
        from .. import targets

        runner = targets.get(self.exported.target).load(self.exported, self.running.threads)
        backend = getattr(runner, "backend", None)
        # Through the device's own detector where there is one, without the copies that `Runner.infer` makes.
        return Detector(backend, PREDICT) if backend is not None else _OfRunner(runner)  # type: ignore[return-value]


class _OfRunner:
    """A runner that is no network of the device runtime, with a detector's steps."""

    def __init__(self, runner: Runner) -> None:
        self.info, self.selection, self._runner = runner.info, PREDICT, runner
        self._task = spec_of(runner.info.task)
        shape = (1, runner.info.channels, *runner.info.imgsz)
        # What `bench` asks a backend for its facts.
        self.backend = SimpleNamespace(name="other", version="", input_shape=shape, input_dtype="float32")

    def preprocess(self, image: np.ndarray) -> tuple[np.ndarray, Letterbox]:
        return self._task.prepare(image, self.info.imgsz)

    def infer(self, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        return self._runner.infer(tensor)

    def postprocess(self, outputs: tuple[np.ndarray, ...], where: Letterbox) -> Detections:
        decoded = self._runner.decode(outputs)
        return self._task.select(decoded, self._runner.layout, self.info, self.selection)

    def __call__(self, image: np.ndarray) -> Detections:
        tensor, where = self.preprocess(image)
        return self.postprocess(self.infer(tensor), where)

    def close(self) -> None:
        self._runner.close()


def measure_latency(
    exported: ExportedModel,
    reference: ExportedModel | None,
    pictures: Sequence[np.ndarray],
    threads: int,
    options: BenchOptions = REPORTED,
    others: Sequence[ExportedModel] = (),
) -> Timing:
    """Time an artifact, and float models of the same runtime in turn with it.

    Args:
        exported: The artifact.
        reference: The float model; None if it could not be built.
        pictures: BGR images.
        threads: Threads of each.
        options: Rounds and runs.
        others: The same in other float precisions; one that is faster than the float model takes its place.
    """
    models = {"int8": exported}
    if reference is not None:
        models |= {other.precision: other for other in others} | {"fp32": reference}
    taken = time_in_turns(models, pictures, threads, options)
    if "int8" in taken.errors:
        return Timing(note=f"its process failed: {taken.errors['int8']}")
    latency = _latency(taken, threads)
    if reference is None or "fp32" in taken.errors:
        return Timing(latency, note=taken.errors.get("fp32", "no float model was timed in the same runtime"))
    best = _fastest_float(taken)
    return Timing(latency, ratio(taken, "int8", best), against=best)


def _fastest_float(taken: Taken) -> str:
    """The float precision that is fastest: FP32, unless another one is faster beyond what rounds scatter by."""
    others = (name for name in taken.turns if name not in {"int8", "fp32", *taken.errors})
    found = {name: ratio(taken, name, "fp32") for name in others}
    return min((name for name in found if found[name].high < 1), key=lambda n: found[n].value, default="fp32")


def time_in_turns(
    models: Mapping[str, ExportedModel], pictures: Sequence[np.ndarray], threads: int, options: BenchOptions = OPTIONS
) -> Taken:
    """Time artifacts in turns, each in a process of its own.

    Args:
        models: By name.
        pictures: BGR images.
        threads: Threads of each.
        options: Rounds and runs.
    """
    running = Running(threads=threads)
    return take_turns({name: ExportOpener(each, running) for name, each in models.items()}, pictures, options)


def medians(taken: Taken, name: str) -> np.ndarray:
    """Median milliseconds of every round of an artifact."""
    return np.array([np.median(turn.seconds[:, INFERENCE]) * 1e3 for turn, _ in taken.turns[name]])


def _latency(taken: Taken, threads: int) -> Latency:
    times = np.concatenate([turn.seconds[:, INFERENCE] for turn, _ in taken.turns["int8"]]) * 1e3
    low, high = np.quantile(medians(taken, "int8"), _ends())
    return Latency(
        float(np.median(times)), float(np.quantile(times, 0.9)), len(times), threads, float(low), float(high)
    )


def ratio(taken: Taken, name: str, other: str) -> Interval:
    """Time of an artifact divided by another's within each round: the median, and what 80 % of the rounds cover."""
    ratios = medians(taken, name) / medians(taken, other)
    low, high = np.quantile(ratios, _ends())
    std = float(ratios.std(ddof=1)) if len(ratios) > 1 else 0.0
    return Interval(float(np.median(ratios)), float(low), float(high), SPREAD, std)


def _ends() -> tuple[float, float]:
    return (1 - SPREAD) / 2, (1 + SPREAD) / 2


def unmeasured(target: Target) -> str:
    """Why the time of a target's artifact on this machine would say nothing; empty if it says something."""
    if target.capabilities.timed_here:
        return ""
    devices = ", ".join(device.name for device in target.devices) or "another device"
    return f"not measured here: it is for {devices}; 'bench' measures it on the device"
