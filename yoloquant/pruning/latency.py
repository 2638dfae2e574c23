"""Latency as a target: candidates are built and timed in the runtime that counts, beside the unpruned model."""

from __future__ import annotations

import bisect
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PruneError, TargetError
from .criteria import Measure
from .groups import Group, Groups
from .layer_latency import WIDTHS, LayerLatency, Sample
from .plan import PrunePlan
from .planner import Analysis, plan_of, ranked
from .prune_options import PruneOptions
from .remove_channels import pruned
from .solver import Ladder, measure_of

if TYPE_CHECKING:
    from torch import nn

    from ..bridge.host_model import HostModel
    from ..runtime.core.runner import Runner
    from ..types import ExportedModel

logger = logging.getLogger(__name__)

ROUNDS, TIMED = 12, 4
SETTLE_S = 0.05  # until the other model's weights are out of the caches, and its threads no longer spin
QUANTILE = 0.25  # other work on the machine only ever makes a run slower
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
        # once, and loaded all the time: every candidate takes turns with it
        self._unpruned = self._export(source.module, "unpruned")
        self._reference = self._target.load(self._unpruned)

    def __call__(self, module: nn.Module) -> tuple[float, float]:
        """Milliseconds (lower quartile) of the unpruned model and of this one, taking turns."""
        runner = self._target.load(self._export(module, "candidate"))
        times: tuple[list[float], list[float]] = [], []
        try:
            for _ in range(ROUNDS):
                for found, each in zip(times, (self._reference, runner), strict=True):
                    found += self._turn(each)
        finally:
            runner.close()
        before, after = (float(np.quantile(t, QUANTILE)) for t in times)
        return before, after

    def _turn(self, runner: Runner) -> list[float]:
        """A few times in a row, once it runs as if it were alone."""
        until = time.perf_counter() + SETTLE_S
        while time.perf_counter() < until:
            runner.infer(self._image)
        times: list[float] = []
        for _ in range(TIMED):
            start = time.perf_counter()
            runner.infer(self._image)
            times.append((time.perf_counter() - start) * 1e3)
        return times

    def layers(self, module: nn.Module) -> Mapping[str, float]:
        """Milliseconds by the name of a layer's weight; empty where the runtime does not tell."""
        return self._target.layer_times(self._export(module, "candidate"), self._image)

    def told(self, plan: PrunePlan, module: nn.Module) -> PrunePlan:
        """A plan whose layers have the milliseconds that the runtime tells, of the unpruned and of the pruned model."""
        before = self._target.layer_times(self._unpruned, self._image)
        after = self.layers(module) if before else {}
        known = before.keys() & after.keys()
        layers = (replace(c, ms=(before[c.weight], after[c.weight])) if c.weight in known else c for c in plan.layers)
        return replace(plan, layers=tuple(layers))

    def _export(self, module: nn.Module, stem: str) -> ExportedModel:
        from ..graph.traced_model import TracedModel
        from ..quantization.artifact import Artifact

        model = replace(self._source, module=module, state={})
        return self._target.export_float(Artifact(TracedModel.of(model, self._imgsz)), Path(self._folder.name), stem)

    def close(self) -> None:
        """Free the runtime and the files."""
        self._reference.close()
        self._folder.cleanup()


def plan_for_latency(
    analysis: Analysis, source: HostModel, options: PruneOptions, imgsz: tuple[int, int], **limits: Any
) -> PrunePlan:
    """The mildest plan whose measured latency is short enough.

    Where the runtime tells what each layer costs, the units of slow layers go first (see ``planner.ranked``).

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
    chosen = options.limits(limits.get("round_to", 8), limits.get("protected"))
    watch = Stopwatch(source, imgsz, options.runtime)
    measured: dict[int, tuple[float, float]] = {}

    def built(step: int) -> tuple[PrunePlan, nn.Module]:
        plan = plan_of(analysis, ladder.kept(step), options, imgsz)
        return plan, pruned(source.module, plan, channels=source.channels, groups=analysis.groups)

    def share(step: int) -> float:
        plan, module = built(step)
        before, after = measured[step] = watch(module)
        logger.info("%.1f %% of the multiplications gone: %.2f of %.2f ms", _pruned_fraction(plan), after, before)
        return 1 - after / before

    try:
        cost = _predicted(analysis, source, watch, chosen.round_to) or measure_of(analysis.costs, Measure.FLOPS)
        ladder = Ladder(analysis.groups, ranked(analysis, cost), chosen, options.scope)
        low, high = 0, len(ladder) - 1
        # the strongest first: if even that is too slow, nothing in between need be built
        most = share(high)
        if most < options.amount:
            raise PruneError(
                f"{options.amount:.0%} of the latency in {options.runtime} cannot be removed: the most that max_ratio, "
                f"round_to and ignored layers leave is {most:.1%}; ask for that, raise max_ratio, or lower round_to"
            )
        # predicted, so that halving starts beside the answer: every probe exports and times a model
        probe = _first(ladder, cost, options.amount)
        while high - low > 1:
            found = share(probe)
            low, high = (low, probe) if found >= options.amount else (probe, high)
            if 0 <= found - options.amount < TOLERANCE:
                break
            probe = (low + high) // 2
        plan, module = built(high)
        return replace(watch.told(plan, module), latency={options.runtime: measured[high]})
    finally:
        watch.close()


def _predicted(analysis: Analysis, source: HostModel, watch: Stopwatch, round_to: int) -> LayerLatency | None:
    """Latency by layer from the profiles of a few uniform widths; None where the runtime has no profiler."""
    samples = []
    for share in WIDTHS:
        kept = {g.name: _nearest(g, g.count * share, round_to) for g in analysis.groups.groups}
        plan = plan_of(analysis, kept, PruneOptions(), (32, 32))
        ms = watch.layers(pruned(source.module, plan, channels=source.channels, groups=analysis.groups))
        if not ms:
            return None
        samples.append(Sample(kept, ms))
    return LayerLatency(analysis.costs, samples)


def _nearest(group: Group, wanted: float, round_to: int) -> int:
    return min(group.allowed(round_to) or [group.count], key=lambda n: (abs(n - wanted), -n))


def _first(ladder: Ladder, cost: Callable[[Mapping[str, int]], float], amount: float) -> int:
    """The step that is predicted to be fast enough."""
    goal = cost(ladder.kept(0)) * (1 - amount)
    found = bisect.bisect_left(range(len(ladder)), True, key=lambda step: cost(ladder.kept(step)) <= goal)
    # inside the interval: both of its ends are known already
    return min(max(found, 1), len(ladder) - 2)


def with_latency(plan: PrunePlan, source: HostModel, runtime: str, *, groups: Groups | None = None) -> PrunePlan:
    """A plan with its measured latency in a runtime, by layer too where the runtime tells (groups: see `pruned`)."""
    watch = Stopwatch(source, plan.imgsz, runtime)
    try:
        module = pruned(source.module, plan, channels=source.channels, groups=groups)
        return replace(watch.told(plan, module), latency={**plan.latency, runtime: watch(module)})
    finally:
        watch.close()


def _pruned_fraction(plan: PrunePlan) -> float:
    return 100 * (1 - plan.after.macs / plan.before.macs)
