"""The smallest set of layers that must stay in float, found on images instead of guessed.

Every layer is left in float alone, and how much nearer the raw outputs come to the float model's ranks the layers. The
best ones together are tried, twice as many each time, until the budget is met; bisection finds how few of them do; and
every one of those is then taken back, the dearest first, unless it is needed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import UsageError
from ..evaluation.torch_runner import TorchRunner
from ..quantization.artifact import Artifact
from ..quantization.float_layers import layer_of, leave_float
from ..quantization.plan import Plan
from ..quantization.scheme import PORTABLE
from ..quantization.simulate import simulate
from ..summarized import Summarized
from ..types import Progress
from .analyze_options import AnalysisMetric
from .float_search_options import FloatSearchOptions
from .images import Images, open_images
from .raw_outputs import GraphDistance
from .score import Scorer
from .search_start import multiplications, searched_artifact, searched_scheme, share_of, with_plan

if TYPE_CHECKING:
    from ..quantization.scheme import Scheme

logger = logging.getLogger(__name__)

# map_drop is given in points, scores are fractions
POINTS = 100.0


@dataclass(frozen=True)
class FloatTrial:
    """A plan that was measured.

    Attributes:
        layers: Layers in float.
        share: Their share of the multiplications.
        fidelity: mAP50-95 against the float model's detections; None if it was not asked for.
        map_drop: Loss of mAP50-95 in points; None if it was not asked for.
    """

    layers: tuple[str, ...]
    share: float
    fidelity: float | None
    map_drop: float | None

    def __str__(self) -> str:
        scores = [] if self.fidelity is None else [f"fidelity {self.fidelity:.4f}"]
        scores += [] if self.map_drop is None else [f"mAP drop {self.map_drop:.2f} points"]
        return f"{len(self.layers)} layers, {self.share:.1%} of the multiplications: {', '.join(scores)}"


@dataclass(frozen=True, repr=False)
class FloatSearch(Summarized):
    """What a search found.

    Attributes:
        scheme: The scheme.
        whole: The plan with no layer in float.
        best: The smallest plan that meets the budget, or the best one where none does.
        met: Whether it meets the budget.
        gains: How much nearer each layer in float brings the raw outputs to the float model's, best first.
        trials: Every plan that was measured, in order.
        artifact: The model with the plan that was found.
    """

    scheme: str
    whole: FloatTrial
    best: FloatTrial
    met: bool
    gains: tuple[tuple[str, float], ...]
    trials: tuple[FloatTrial, ...]
    artifact: Artifact = field(compare=False)

    def summary(self) -> str:
        """Before and after, and which layers."""
        lines = [f"plan '{self.scheme}', all layers in integers: {self.whole}"]
        if not self.best.layers:
            lines.append("no layer has to stay in float" if self.met else "no layer in float helps")
            return "\n".join(lines)
        lines.append(f"{'found' if self.met else 'not enough, the best found'}: {self.best}")
        return "\n".join([*lines, *(f"  {layer}" for layer in self.best.layers)])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the model."""
        return {
            "scheme": self.scheme,
            "met": self.met,
            "whole": vars(self.whole),
            "best": vars(self.best),
            "gains": [list(pair) for pair in self.gains],
            "trials": [vars(trial) for trial in self.trials],
        }


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
        progress: Called after every measurement.

    Raises:
        UsageError: No budget is given, several schemes are named, or one whose runtimes have no float layers.
        DataError: The data are not usable.
        ModelError: The model cannot be read or traced.
    """
    options = options or FloatSearchOptions()
    if options.fidelity is None and options.map_drop is None:
        raise UsageError("a search needs a budget: give fidelity=, map_drop=, or both")
    scheme = searched_scheme(options.scheme)
    _check_executable(scheme)
    artifact = searched_artifact(model, data, scheme, options)
    # decides whether labels are asked for; both may be measured
    metric = AnalysisMetric.FIDELITY if options.map_drop is None else AnalysisMetric.MAP
    images = open_images(data, options.analysis(metric), artifact.info)
    return _Search(artifact, scheme, images, options, progress).run()


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


class _Search:
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

    def run(self) -> FloatSearch:
        """Rank, grow, bisect, and take back."""
        # first: often nothing has to stay in float, and ranking takes a run of the network for every layer
        whole = self.measure(())
        gains: tuple[tuple[str, float], ...] = ()
        best, met = whole, self.meets(whole)
        if not met:
            gains = self.rank()
            # a layer that gains nothing alone is not tried: with others it would be noise that costs multiplications
            best = self.take_back(self.grow([layer for layer, gain in gains if gain > 0]))
            met = self.meets(best)
        plan = leave_float(self.graph, self.plan, best.layers)
        artifact = with_plan(self.artifact, self.scheme, plan)
        return FloatSearch(self.scheme.name, whole, best, met, gains, tuple(self.trials.values()), artifact)

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
            best = max(best, trial, key=self._margin)
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
        for layer in sorted(found.layers, key=lambda name: -self.macs.get(name, 0)):
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
            fidelity = self._fidelity(runner) if self._fidelity else None
            drop = (self._exact_map - self._map(runner)) * POINTS if self._map else None
            self.trials[key] = FloatTrial(tuple(layers), self.share(layers), fidelity, drop)
            logger.info("%s", self.trials[key])
            if self.progress:
                self.progress(len(self.trials), 0, str(self.trials[key]))
        return self.trials[key]

    def meets(self, trial: FloatTrial) -> bool:
        """Whether a plan is within the budget."""
        return self._margin(trial) >= 0

    def _margin(self, trial: FloatTrial) -> float:
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
