"""The smallest set of layers that must stay in float, found on images instead of guessed.

Sets are found in simulation. What is found is exported where its runtime is here, scored on the same images, and timed
if a limit on its time is given; a set that fails there is refused, and another one is looked for.
"""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..quantization.artifact import Artifact
from ..quantization.float_layers import leave_float
from ..quantization.plan import Plan
from ..quantization.scheme import PORTABLE
from ..runtime.device.processors import cpu_threads
from ..types import Progress
from .analyze_options import AnalysisMetric
from .float_search_options import FloatSearchOptions
from .float_search_results import PERCENT, ExportFigures, FloatSearch, FloatTrial, scores_of
from .images import Images, open_images
from .real_exports import RealExports, runtime_here, timed_target
from .search_start import searched_artifact, searched_info, searched_scheme, with_plan
from .simulated_search import POINTS, SimulatedSearch

if TYPE_CHECKING:
    from ..quantization.scheme import Scheme

logger = logging.getLogger(__name__)

REFUSED = 5
"""So many sets may fail as real exports before the search gives up: each costs an export and a pass over the images."""
_FRACTION = 0.05
_NOTE = "left in float for accuracy"


def search_float_layers(
    model: Any,
    *,
    data: str | os.PathLike[str],
    options: FloatSearchOptions | None = None,
    progress: Progress | None = None,
) -> FloatSearch:
    """Find the smallest set of layers in float that meets a budget.

    Args:
        model: A plain checkpoint, which is calibrated, a quantized one, whose ranges stay, or an Artifact.
        data: Data yaml, or a folder of images where no ``map_drop`` is asked for.
        options: Scheme, budget and images.
        progress: Called after every calibration image, and after every measurement.

    Raises:
        UsageError: No budget is given, several schemes are named, one whose runtimes have no float layers, or one whose
            exports cannot be timed here though a limit on their time is given.
        DataError: The data are not usable.
        ModelError: The model cannot be read or traced.
        TargetError: An export cannot be made, run or timed.
    """
    options = options or FloatSearchOptions()
    if options.fidelity is None and options.map_drop is None:
        raise UsageError("a search needs a budget: give fidelity=, map_drop=, or both")
    if options.map_drop is not None and 0 < options.map_drop < _FRACTION:
        logger.warning(
            "map_drop=%g is %g points, a fraction of %g: gates count in fractions, a search in points, where their "
            "map_drop: 0.01 is map_drop=1",
            *(options.map_drop, options.map_drop, options.map_drop / POINTS),
        )
    scheme = searched_scheme(options.scheme)
    _check_executable(scheme)
    if options.slower is not None:
        timed_target(scheme)
    target, simulated = runtime_here(scheme)
    # decides whether labels are asked for; both may be measured
    metric = AnalysisMetric.FIDELITY if options.map_drop is None else AnalysisMetric.MAP
    # before minutes of calibration: labels of another task, other classes and broken images are told at once
    images = open_images(data, options.analysis(metric), searched_info(model, options))
    artifact = searched_artifact(model, data, scheme, options, progress)
    images = replace(images, info=artifact.info)
    threads = options.threads or cpu_threads()
    with tempfile.TemporaryDirectory(prefix="yoloquant-") as folder:
        real = RealExports(artifact, scheme, target, images, threads, Path(folder)) if target else None
        if target:
            # what it does not export is told now, not when a plan was found
            target.check(with_plan(artifact, scheme, artifact.plan_for(scheme)))
        return _Search(artifact, scheme, images, options, real, progress).run(threads, simulated)


def _check_executable(scheme: Scheme) -> None:
    """Refuse a scheme whose runtimes compute in integers throughout: no export would take what is found."""
    from .. import targets

    able = {PORTABLE.name: True}
    for target in map(targets.get, targets.names()):
        able[target.scheme.name] = able.get(target.scheme.name, False) or target.capabilities.float_layers
    if not able[scheme.name]:
        raise UsageError(
            f"no runtime of scheme '{scheme.name}' computes single layers in float; allowed are "
            f"scheme={', '.join(name for name, mixes in able.items() if mixes)}"
        )


class _Search(SimulatedSearch):
    def __init__(
        self,
        artifact: Artifact,
        scheme: Scheme,
        images: Images,
        options: FloatSearchOptions,
        real: RealExports | None,
        progress: Progress | None,
    ) -> None:
        super().__init__(artifact, scheme, images, options, progress)
        self.real = real
        # layers that take too long in float
        self.too_slow: frozenset[str] = frozenset()

    def run(self, threads: int, simulated: str) -> FloatSearch:
        """Search, and prove what was found by its real export; what fails there is refused, and the search goes on."""
        # first: often nothing has to stay in float, and ranking takes a run of the network for every layer
        whole = self.measure(())
        best = whole if self.meets(whole) else self.search()
        met = self.meets(best)
        while self.real and met:
            best = self.export(best)
            if self.holds(best):
                break
            other = self.another(best) if len(self.refused) < REFUSED else None
            met, best = other is not None, other or best
        if not met:
            best = self.nearest(best)
        plan = self.noted(leave_float(self.graph, self.plan, best.layers), whole, self.trials[frozenset(best.layers)])
        artifact = with_plan(self.artifact, self.scheme, plan)
        trials, key = tuple(self.trials.values()), frozenset(best.layers)
        return FloatSearch(
            *(self.scheme.name, self.trials[frozenset()], self.trials[key], met, self.gains, trials),
            *(self.options, threads, simulated, artifact),
        )

    def another(self, failed: FloatTrial) -> FloatTrial | None:
        """Another set in simulation than one whose real export failed; None if there is none."""
        self.refused.add(frozenset(failed.layers))
        lacking = -self.margin(failed.exported or failed)
        if lacking > 0:
            # asked of the simulation on top: it promised what the runtime does not keep
            self.lacked += lacking
            found = self.search(self.too_slow)
            return found if self.meets(found) else self.promised()
        # too slow: without one of its layers, the dearest first, where others make up for it
        for layer in self.dearest(failed):
            found = self.search(self.too_slow | {layer})
            if self.meets(found):
                self.too_slow |= {layer}
                return found
        return None

    def promised(self) -> FloatTrial | None:
        """Of the sets that are within the budget in simulation as it was asked for, the best that was not exported."""
        # what the runtime did not keep for one set it may keep for another
        within = [
            trial
            for key, trial in self.trials.items()
            if trial.exported is None
            and self.margin(trial) >= 0
            and not key & self.too_slow
            and key not in self.refused
        ]
        return max(within, key=self.margin, default=None)

    def nearest(self, best: FloatTrial) -> FloatTrial:
        """Of sets that do not meet the budget the one to show, as a real export where there is one."""
        tried = [trial for trial in self.trials.values() if trial.exported]
        if not tried:
            # both sides of the budget are told, also where none of them is met
            return self.export(best, timed=self.options.slower is not None) if self.real else best
        near = [trial for trial in tried if trial.exported and self.margin(trial.exported) >= 0]
        # near enough but too slow: the fastest
        return min(near, key=_ratio) if near else max(tried, key=lambda t: self.margin(t.exported or t))

    def holds(self, trial: FloatTrial) -> bool:
        """Whether a plan's real export is near enough, and not slower than allowed beyond noise."""
        figures = trial.exported
        if figures is None or self.margin(figures) < 0:
            return False
        limit = self.options.slower
        return figures.ratio is None or limit is None or figures.ratio.low <= 1 + limit / PERCENT

    def export(self, trial: FloatTrial, *, timed: bool = False) -> FloatTrial:
        """Measure a plan's real export, its time only if it may count or is wanted."""
        assert self.real is not None
        exported = self.real.export(leave_float(self.graph, self.plan, trial.layers))
        with self.real.opened(exported) as runner:
            figures = ExportFigures(*self.scores(runner))
        if trial.layers and (timed or (self.options.slower is not None and self.margin(figures) >= 0)):
            ratio, milliseconds = self.real.time(exported)
            figures = replace(figures, ratio=ratio, milliseconds=milliseconds)
        found = replace(trial, exported=figures)
        self.trials[frozenset(trial.layers)] = found
        told = f"exported, {len(trial.layers)} layers: {', '.join(scores_of(figures))}"
        told += f", {figures.ratio.value:.3f} of the time" if figures.ratio else ""
        logger.info("%s", told)
        if self.progress:
            self.progress(len(self.trials), 0, told)
        return found

    def noted(self, plan: Plan, whole: FloatTrial, best: FloatTrial) -> Plan:
        """The plan with a note on what its float layers are for, which every export and report shows."""
        if not best.layers:
            return plan
        before, after = (", ".join(scores_of(trial)) for trial in (whole, best))
        note = f"{_NOTE} ({len(self.images.data)} images, simulated): {before} -> {after}"
        if best.exported:
            note += f"; {self.scheme.name} export: {', '.join(scores_of(best.exported))}"
            took = best.exported.ratio
            note += (
                f", {took.value:.3f} [{took.low:.3f}, {took.high:.3f}] of the time of all in integers" if took else ""
            )
        return replace(plan, notes=(*plan.notes, note))


def _ratio(trial: FloatTrial) -> float:
    figures = trial.exported
    return figures.ratio.value if figures and figures.ratio else 1.0
