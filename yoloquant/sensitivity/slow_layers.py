"""Layers that a runtime computes more slowly in integers than in float, found by its own profile and taken back.

The runtime profiles the plan's export and the float one in turns. A layer whose integers were slower in every round is
a candidate. All candidates together, the half of them that wins most, a quarter ... are exported and timed as a whole
beside the plan as it was. The fastest is timed once more, and kept if it is faster beyond noise then, too.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..evaluation.results import Interval
from ..quantization.artifact import Artifact
from ..quantization.float_layers import layer_of, leave_float
from ..quantization.plan import Plan
from ..runtime.device.processors import cpu_threads
from ..summarized import Summarized, plain
from ..types import ExportedModel, Progress
from .analyze_options import AnalysisMetric
from .float_search_options import FloatSearchOptions
from .images import Images, open_images
from .plan_times import FLOAT, FOUND, INTEGERS, time_plans
from .search_start import multiplications, searched_artifact, searched_scheme, share_of, with_plan

if TYPE_CHECKING:
    from ..quantization.scheme import Scheme
    from ..targets.base import Target

logger = logging.getLogger(__name__)

ROUNDS = 6
"""Profiles of each export. Of two equal layers one is slower in all of them by chance once in 64 times."""
PICTURES = 4
_NOTE = "left in float, slower in integers"
_SHOWN = 20


@dataclass(frozen=True)
class LayerTime:
    """What one layer costs, with all that quantizes, dequantizes and requantizes its result.

    Attributes:
        layer: The layer.
        int8_ms: Its time in the plan's export, the median of the rounds.
        float_ms: The same in the float export.
        slower: Whether integers were slower in every round.
    """

    layer: str
    int8_ms: float
    float_ms: float
    slower: bool


@dataclass(frozen=True)
class LatencyTrial:
    """A plan that was exported and timed.

    Attributes:
        layers: Layers that it takes back to float.
        share: Their share of the multiplications.
        ratio: Its time divided by that of the plan as it was.
    """

    layers: tuple[str, ...]
    share: float
    ratio: Interval

    @property
    def faster(self) -> bool:
        """Whether it is faster than the plan as it was, beyond what rounds scatter by."""
        return self.ratio.high < 1

    def __str__(self) -> str:
        return f"{len(self.layers)} layers, {self.share:.1%} of the multiplications: {self.ratio.value:.3f} of the time"


@dataclass(frozen=True, repr=False)
class LatencySearch(Summarized):
    """What a search for slow layers found.

    Attributes:
        scheme: The scheme.
        threads: Threads of one inference.
        times: Every layer that the runtime told of, in execution order.
        trials: Every plan that was timed, in order.
        best: The one that was kept, as its last measurement has it; None if none was faster.
        milliseconds: Time of the whole network in the last measurement, by ``integers``, ``found`` and ``float``.
        artifact: The model with the plan that was found, or with the plan as it was.
    """

    scheme: str
    threads: int
    times: tuple[LayerTime, ...]
    trials: tuple[LatencyTrial, ...]
    best: LatencyTrial | None
    milliseconds: Mapping[str, float]
    artifact: Artifact = field(compare=False)

    @property
    def met(self) -> bool:
        """Whether there is a plan to save: always, since the one as it was is never slower than itself."""
        return True

    def summary(self) -> str:
        """The layers that are slower in integers, and the whole network before and after."""
        slower = sorted((t for t in self.times if t.slower), key=_gain, reverse=True)
        lines = [
            f"{self.scheme}, threads={self.threads}: {len(slower)} of {len(self.times)} layers were slower in integers "
            f"in each of {ROUNDS} rounds"
        ]
        taken = set(self.best.layers) if self.best else set()
        if slower:
            lines.append(f"  {'layer':<32} {'integers, ms':>12} {'float, ms':>10}")
        for each in slower[:_SHOWN]:
            mark = "  taken back" if each.layer in taken else ""
            lines.append(f"  {each.layer:<32} {each.int8_ms:>12.3f} {each.float_ms:>10.3f}{mark}")
        if len(slower) > _SHOWN:
            lines.append(f"  and {len(slower) - _SHOWN} more")
        ms = self.milliseconds
        whole = f"the whole network: {ms[INTEGERS]:.2f} ms with the plan as it was, {ms[FLOAT]:.2f} ms in float"
        if self.best is None and not self.trials:
            lines.append(f"{whole}; nothing is taken back")
        elif self.best is None:
            near = min(self.trials, key=lambda trial: trial.ratio.value)
            again, took = " when it was measured again" if near.faster else "", near.ratio
            lines.append(
                f"{whole}; no set of them in float was faster beyond noise{again}: the nearest, {len(near.layers)} "
                f"layers, took {took.value:.3f} [{took.low:.3f}, {took.high:.3f}] of the plan as it was"
            )
        else:
            share, took = self.best.share, self.best.ratio
            lines.append(
                f"{whole}, {ms[FOUND]:.2f} ms with {len(taken)} layers in float ({share:.1%} of the multiplications), "
                f"{took.value:.3f} [{took.low:.3f}, {took.high:.3f}] of the plan as it was"
            )
        if ms[FLOAT] == min(ms.values()):
            lines.append(f"float throughout was the fastest: targets={self.scheme}:fp32 may be the better export here")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the model."""
        found: dict[str, Any] = plain(replace(self, artifact=None))  # type: ignore[arg-type]
        return {key: value for key, value in found.items() if key != "artifact"}


def search_slow_layers(
    model: Any,
    *,
    data: str | os.PathLike[str],
    options: FloatSearchOptions | None = None,
    progress: Progress | None = None,
) -> LatencySearch:
    """Take layers back to float that the runtime computes more slowly in integers.

    Args:
        model: A plain checkpoint, which is calibrated, a quantized one, whose ranges stay, or an Artifact.
        data: Data yaml, or a folder of images.
        options: Scheme and threads.
        progress: Called after every calibration image, and before every profile and measurement.

    Raises:
        UsageError: Several schemes are named, or no runtime of this scheme tells the time of single layers.
        DataError: The data are not usable.
        ModelError: The model cannot be read or traced.
        TargetError: An export cannot be made or timed.
    """
    options = options or FloatSearchOptions()
    if options.slower is not None:
        raise UsageError("slower= is for goal=accuracy; a plan that goal=latency finds is never slower; leave it out")
    scheme = searched_scheme(options.scheme)
    target = profiled_target(scheme)
    artifact = searched_artifact(model, data, scheme, options, progress)
    # a few: how long a network takes hardly depends on what it sees
    images = open_images(data, replace(options, images=PICTURES).analysis(AnalysisMetric.FIDELITY), artifact.info)
    with tempfile.TemporaryDirectory(prefix="yoloquant-") as folder:
        return _SlowLayerSearch(
            artifact, scheme, target, images, options.threads or cpu_threads(), Path(folder), progress
        ).run()


def profiled_target(scheme: Scheme) -> Target:
    """The runtime that a scheme is for.

    Raises:
        UsageError: There is none that tells the time of single layers.
        MissingExtraError: It is not installed.
    """
    from .. import targets

    able = [name for name in targets.names() if targets.get(name).capabilities.profiled]
    if scheme.name not in able:
        raise UsageError(
            f"no runtime of scheme '{scheme.name}' tells Python the time of single layers; goal=latency knows "
            f"scheme={' and '.join(able)}"
        )
    target = targets.get(scheme.name)
    target.require()
    return target


def compare_layers(rounds: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> tuple[LayerTime, ...]:
    """What every layer costs in integers and in float.

    Args:
        rounds: Milliseconds by layer of both, in the order in which they took turns.
    """
    names = [name for name in rounds[0][0] if all(name in times for pair in rounds for times in pair)]
    found = []
    for name in names:
        integers, floats = (np.array([pair[which][name] for pair in rounds]) for which in (0, 1))
        slower = bool((integers > floats).all())
        found.append(LayerTime(name, float(np.median(integers)), float(np.median(floats)), slower))
    return tuple(found)


def _gain(each: LayerTime) -> float:
    return each.int8_ms - each.float_ms


class _SlowLayerSearch:
    def __init__(
        self,
        artifact: Artifact,
        scheme: Scheme,
        target: Target,
        images: Images,
        threads: int,
        folder: Path,
        progress: Progress | None,
    ) -> None:
        self.artifact, self.scheme, self.target, self.threads = artifact, scheme, target, threads
        self.folder, self.progress = folder, progress
        self.graph, self.plan = artifact.graph, artifact.plan_for(scheme)
        self.image = images.inputs[0][0]
        self.pictures = [images.data.read(index) for index in range(min(PICTURES, len(images.data)))]
        self.macs = multiplications(self.graph)
        self.layer = {op.weight: layer_of(op.name) for op in self.graph.body() if op.weight}
        self.trials: list[LatencyTrial] = []
        self.say(0, 1, "exporting")
        self.before = self.export(self.plan, INTEGERS)
        self.exact = target.export_float(artifact, folder, FLOAT)

    def run(self) -> LatencySearch:
        """Profile, try, and keep what is faster."""
        times = self.profile()
        fastest = self.try_out(self.candidates(times))
        plan, best, milliseconds = self.decide(fastest, times)
        artifact = with_plan(self.artifact, self.scheme, plan)
        return LatencySearch(self.scheme.name, self.threads, times, tuple(self.trials), best, milliseconds, artifact)

    def profile(self) -> tuple[LayerTime, ...]:
        """Both exports in turns, as the runtime itself times their layers."""
        rounds = []
        for index in range(ROUNDS):
            self.say(index, ROUNDS, f"profiling, round {index + 1}")
            rounds.append((self.by_layer(self.before), self.by_layer(self.exact)))
        return compare_layers(rounds)

    def by_layer(self, exported: ExportedModel) -> dict[str, float]:
        """Milliseconds of every layer of an export."""
        found: dict[str, float] = defaultdict(float)
        for weight, ms in self.target.layer_times(exported, self.image, self.threads).items():
            if weight in self.layer:
                found[self.layer[weight]] += ms
        return dict(found)

    def candidates(self, times: Sequence[LayerTime]) -> list[str]:
        """Layers that are slower in integers, those that win most first."""
        quantized = {layer_of(point.name) for point in self.plan.weights}
        slower = sorted((t for t in times if t.slower and t.layer in quantized), key=_gain, reverse=True)
        # with nothing in integers it would be the float model, which is measured anyway
        return [t.layer for t in slower][: len(quantized) - 1]

    def try_out(self, candidates: Sequence[str]) -> LatencyTrial | None:
        """The fastest of all candidates, the better half of them, and so on; None if none is faster."""
        # profiles alone do not decide: every change of precision between two layers costs a conversion of its own
        sizes = [len(candidates) >> halved for halved in range(len(candidates).bit_length())]
        for index, count in enumerate(sizes):
            self.say(index, len(sizes), f"exporting and timing, {count} layers in float")
            trial, _ = self.measure(candidates[:count])
            self.trials.append(trial)
            logger.info("%s", trial)
        return min((t for t in self.trials if t.faster), key=lambda t: t.ratio.value, default=None)

    def decide(
        self, fastest: LatencyTrial | None, times: Sequence[LayerTime]
    ) -> tuple[Plan, LatencyTrial | None, dict[str, float]]:
        """Time the fastest again, beside the float model: of several the one that seems fastest was also lucky."""
        self.say(0, 1, "timing the whole network, and beside it the float model")
        trial, milliseconds = self.measure(fastest.layers if fastest else (), exact=True)
        if fastest is None or not trial.faster:
            return self.plan, None, milliseconds
        plan = leave_float(self.graph, self.plan, trial.layers)
        of = {t.layer: t for t in times}
        told = ", ".join(f"{name} {of[name].int8_ms:.3f} > {of[name].float_ms:.3f} ms" for name in trial.layers)
        note = (
            f"{_NOTE} (threads={self.threads}): {told}; the whole network {milliseconds[INTEGERS]:.2f} -> "
            f"{milliseconds[FOUND]:.2f} ms"
        )
        return replace(plan, notes=(*plan.notes, note)), trial, milliseconds

    def measure(self, layers: Sequence[str], *, exact: bool = False) -> tuple[LatencyTrial, dict[str, float]]:
        """Time the plan with some layers in float beside the plan as it was.

        Raises:
            TargetError: One of them failed.
        """
        models = {INTEGERS: self.before, **({FLOAT: self.exact} if exact else {})}
        if layers:
            models[FOUND] = self.export(leave_float(self.graph, self.plan, layers), FOUND)
        found, milliseconds = time_plans(models, self.pictures, self.threads)
        return LatencyTrial(tuple(layers), share_of(self.macs, layers), found), milliseconds

    def export(self, plan: Plan, stem: str) -> ExportedModel:
        """Write a plan for the runtime."""
        return self.target.export(with_plan(self.artifact, self.scheme, plan), self.folder, stem)

    def say(self, done: int, total: int, text: str) -> None:
        """Tell people what begins."""
        if self.progress:
            self.progress(done, total, text)
