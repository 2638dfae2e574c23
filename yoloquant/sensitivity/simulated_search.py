"""The smallest set of layers in float that brings the simulated plan within a budget.

Every layer is left in float alone, and how much nearer the raw outputs come to the float model's ranks the layers. The
best ones together are tried, twice as many each time, until the budget is met; bisection finds how few of them do; and
every one of those is then taken back, the dearest first, unless it is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..evaluation.torch_runner import TorchRunner
from ..quantization.artifact import Artifact
from ..quantization.float_layers import layer_of, leave_float
from ..quantization.plan import Plan
from ..quantization.simulate import simulate
from ..runtime.core.runner import Runner
from ..types import Progress
from .analyze_options import AnalysisMetric
from .float_search_options import FloatSearchOptions
from .float_search_results import ExportFigures, FloatTrial
from .images import Images
from .raw_outputs import GraphDistance
from .score import Scorer
from .search_start import multiplications, share_of

if TYPE_CHECKING:
    from ..quantization.scheme import Scheme

logger = logging.getLogger(__name__)

# map_drop is given in points, scores are fractions
POINTS = 100.0


class SimulatedSearch:
    """Looks for sets of layers, and remembers what was measured.

    Args:
        artifact: The model.
        scheme: The scheme.
        images: Images that the budget is measured on.
        options: Budget and share.
        progress: Called after every measurement.
    """

    def __init__(
        self,
        artifact: Artifact,
        scheme: Scheme,
        images: Images,
        options: FloatSearchOptions,
        progress: Progress | None,
    ) -> None:
        self.artifact, self.scheme, self.options, self.progress = artifact, scheme, options, progress
        self.graph, self.plan = artifact.graph, artifact.plan_for(scheme)
        self.bias = artifact.bias_for(scheme)
        self.images = images
        self.macs = multiplications(self.graph)
        exact = TorchRunner(self.graph.module, artifact.info)
        self._fidelity = Scorer(images, AnalysisMetric.FIDELITY, exact) if options.fidelity is not None else None
        self._map = Scorer(images, AnalysisMetric.MAP, exact) if options.map_drop is not None else None
        # once, of the float model on these very images
        self._exact_map = self._map(exact) if self._map else 0.0
        self.trials: dict[frozenset[str], FloatTrial] = {}
        self.gains: tuple[tuple[str, float], ...] = ()
        # sets that are not to be found, and how far inside the budget a set has to be
        self.refused: set[frozenset[str]] = set()
        self.lacked = 0.0

    def search(self, without: frozenset[str] = frozenset()) -> FloatTrial:
        """The smallest set in simulation: rank, grow, bisect, and take back."""
        self.gains = self.gains or self.rank()
        # a layer that gains nothing alone is not tried: with others it would be noise that costs multiplications
        return self.take_back(self.grow([layer for layer, gain in self.gains if gain > 0 and layer not in without]))

    def rank(self) -> tuple[tuple[str, float], ...]:
        """Every layer with what it gains when it alone is in float, best first."""
        few = [torch.from_numpy(np.ascontiguousarray(i)) for i, _ in self.images.inputs[: self.options.ranking_images]]
        # raw outputs and not fidelity: a single layer moves the latter by less than its noise
        distance = GraphDistance(self.graph, few)
        base = distance(self._simulated(self.plan))
        # layers with weights: ``leave_float`` takes what hangs on one along with it
        layers = list(dict.fromkeys(layer_of(p.name) for p in self.plan.weights))
        gains = []
        for index, layer in enumerate(layers, start=1):
            gains.append((layer, base - distance(self._simulated(leave_float(self.graph, self.plan, (layer,))))))
            if self.progress:
                self.progress(index, len(layers), f"ranking, {layer}")
        return tuple(sorted(gains, key=lambda pair: -pair[1]))

    def grow(self, ranked: Sequence[str]) -> FloatTrial:
        """The fewest of the best layers that meet the budget; the best plan if none does."""
        # before trying: a set above the share would be thrown away, however good
        ranked = self._affordable(ranked)
        # ``low`` layers are too few, ``high`` are what is tried: doubling, so that few sets are measured
        low, high = 0, 1
        best = self.measure(())
        while high <= len(ranked):
            trial = self.measure(ranked[:high])
            if self.meets(trial):
                break
            best = max(best, trial, key=self.margin)
            # at the end of the list one further step says that nothing was found
            low, high = high, min(2 * high, len(ranked)) if high < len(ranked) else high + 1
        if high > len(ranked):
            return best
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.meets(self.measure(ranked[:middle])) else (middle, high)
        return self.measure(ranked[:high])

    def take_back(self, found: FloatTrial) -> FloatTrial:
        """The same without what is not needed, the dearest layer first."""
        if not self.meets(found):
            return found
        # the dearest first: taking it back saves most
        for layer in self.dearest(found):
            fewer = self.measure(tuple(name for name in found.layers if name != layer))
            if self.meets(fewer):
                found = fewer
        return found

    def _affordable(self, ranked: Sequence[str]) -> list[str]:
        """The best layers whose multiplications together stay within the share."""
        kept: list[str] = []
        for layer in ranked:
            if self.share((*kept, layer)) <= self.options.share:
                kept.append(layer)
        return kept

    def share(self, layers: Sequence[str]) -> float:
        """Share of the multiplications that layers do."""
        return share_of(self.macs, layers)

    def measure(self, layers: Sequence[str]) -> FloatTrial:
        """Score the plan with some layers in float; what was measured before is remembered."""
        # which layers, in whatever order they were found
        key = frozenset(layers)
        if key not in self.trials:
            runner = TorchRunner(self._simulated(leave_float(self.graph, self.plan, tuple(layers))), self.artifact.info)
            self.trials[key] = FloatTrial(tuple(layers), self.share(layers), *self.scores(runner))
            logger.info("%s", self.trials[key])
            if self.progress:
                self.progress(len(self.trials), 0, str(self.trials[key]))
        return self.trials[key]

    def scores(self, runner: Runner) -> tuple[float | None, float | None]:
        """Fidelity, and loss of mAP in points, of whatever runs; None for what was not asked for."""
        fidelity = self._fidelity(runner) if self._fidelity else None
        return fidelity, (self._exact_map - self._map(runner)) * POINTS if self._map else None

    def meets(self, trial: FloatTrial) -> bool:
        """Whether a plan is within the budget in simulation, by what real exports were seen to lack."""
        return self.margin(trial) >= self.lacked and frozenset(trial.layers) not in self.refused

    def dearest(self, trial: FloatTrial) -> list[str]:
        """Its layers, those with most multiplications first."""
        return sorted(trial.layers, key=lambda name: -self.macs.get(name, 0))

    def margin(self, trial: FloatTrial | ExportFigures) -> float:
        """How far inside the budget a plan is, in mAP; negative outside."""
        # of several budgets the one that is missed most, in one unit
        margins = []
        if trial.fidelity is not None and self.options.fidelity is not None:
            margins.append(trial.fidelity - self.options.fidelity)
        if trial.map_drop is not None and self.options.map_drop is not None:
            margins.append((self.options.map_drop - trial.map_drop) / POINTS)
        return min(margins)

    def _simulated(self, plan: Plan) -> torch.fx.GraphModule:
        return simulate(self.graph, plan, bias=self.bias)
