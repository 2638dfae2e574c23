"""Latency as a target: candidates are built and timed in the runtime that counts, beside the unpruned model."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PruneError, TargetError
from .apply import pruned
from .make import Analysis, plan_of
from .options import PruneOptions
from .plan import PrunePlan
from .solve import Ladder

if TYPE_CHECKING:
    from torch import nn

    from ..host import HostModel
    from ..targets.base import Runner

logger = logging.getLogger(__name__)

ROUNDS, WARMUP = 30, 5
TOLERANCE = 0.03  # of the unpruned latency: what times scatter by


class Stopwatch:
    """Times float candidates in one runtime against the unpruned model.

    Args:
        source: The unpruned model.
        imgsz: Input height and width in pixels.
        runtime: Name of the target.

    Raises:
        TargetError: The runtime does not run on this machine.
    """

    def __init__(self, source: HostModel, imgsz: tuple[int, int], runtime: str) -> None:
        from .. import targets

        self._target = targets.get(runtime)
        if not self._target.capabilities.runs_here:
            raise TargetError(
                f"latency in '{runtime}' cannot be measured on this machine; take target=flops, or another runtime"
            )
        self._target.require()
        self._source, self._imgsz = source, imgsz
        self._folder = tempfile.TemporaryDirectory()
        self._image = np.random.default_rng(0).random((1, source.channels, *imgsz), dtype=np.float32)
        self._reference = self._runner(source.module, "unpruned")

    def __call__(self, module: nn.Module) -> tuple[float, float]:
        """Median milliseconds of the unpruned model and of this one, taking turns."""
        runner = self._runner(module, "candidate")
        try:
            for _ in range(WARMUP):
                self._time(self._reference)
                self._time(runner)
            pairs = [(self._time(self._reference), self._time(runner)) for _ in range(ROUNDS)]
        finally:
            runner.close()
        return median(a for a, _ in pairs), median(b for _, b in pairs)

    def _time(self, runner: Runner) -> float:
        start = time.perf_counter()
        runner.infer(self._image)
        return (time.perf_counter() - start) * 1e3

    def _runner(self, module: nn.Module, stem: str) -> Runner:
        from .. import host
        from ..artifact import Artifact

        model = replace(self._source, module=module, state={})
        artifact = Artifact(model, host.model_info(model, self._imgsz), {})
        return self._target.load(self._target.export_float(artifact, Path(self._folder.name), stem))

    def close(self) -> None:
        """Free the runtime and the files."""
        self._reference.close()
        self._folder.cleanup()


def plan_for_latency(
    analysis: Analysis, source: HostModel, options: PruneOptions, imgsz: tuple[int, int], **limits: Any
) -> PrunePlan:
    """The mildest plan whose measured latency is short enough.

    Args:
        analysis: The weighed model.
        source: The model.
        options: ``amount`` is the share of the latency that goes, ``runtime`` where it is measured.
        imgsz: Input height and width in pixels.
        **limits: ``round_to`` and ``protected``, as for ``make_plan``.

    Raises:
        PruneError: Not even the strongest pruning is fast enough.
        TargetError: The runtime does not run here.
    """
    ladder = Ladder(
        analysis.groups,
        analysis.units,
        options.limits(limits.get("round_to", 8), limits.get("protected")),
        options.scope,
    )
    watch = Stopwatch(source, imgsz, options.runtime)
    measured: dict[int, tuple[float, float]] = {}

    def share(step: int) -> float:
        plan = plan_of(analysis, ladder.left(step), options, imgsz)
        before, after = measured[step] = watch(pruned(source.module, plan, channels=source.channels))
        logger.info("%.1f %% of the multiplications gone: %.2f of %.2f ms", _gone(plan), after, before)
        return 1 - after / before

    try:
        low, high = 0, len(ladder) - 1
        most = share(high)
        if most < options.amount:
            raise PruneError(
                f"{options.amount:.0%} of the latency in {options.runtime} cannot be removed: the most that max_ratio, "
                f"round_to and ignored layers leave is {most:.1%}; ask for that, raise max_ratio, or lower round_to"
            )
        while high - low > 1:
            middle = (low + high) // 2
            found = share(middle)
            low, high = (low, middle) if found >= options.amount else (middle, high)
            if 0 <= found - options.amount < TOLERANCE:
                break
    finally:
        watch.close()
    plan = plan_of(analysis, ladder.left(high), options, imgsz)
    return replace(plan, latency={options.runtime: measured[high]})


def with_latency(plan: PrunePlan, source: HostModel, runtime: str) -> PrunePlan:
    """A plan with its measured latency in a runtime."""
    watch = Stopwatch(source, plan.imgsz, runtime)
    try:
        measured: Mapping[str, tuple[float, float]] = {
            **plan.latency,
            runtime: watch(pruned(source.module, plan, channels=source.channels)),
        }
    finally:
        watch.close()
    return replace(plan, latency=measured)


def _gone(plan: PrunePlan) -> float:
    return 100 * (1 - plan.after.macs / plan.before.macs)
