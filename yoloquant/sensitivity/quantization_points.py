"""One layer or quantization point at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from ..evaluation.torch_runner import TorchRunner
from ..quantization.artifact import Artifact
from ..quantization.bias_overflow import without_bias_overflow
from ..quantization.calibrate import observe, solve_plan
from ..quantization.float_layers import layer_of
from ..quantization.plan import Plan, Point, PointKind
from ..quantization.qparams import QuantSpec
from ..quantization.scheme import Scheme, derive
from ..quantization.simulate import simulate
from .analyze_options import AnalysisMetric, AnalyzeOptions, Per
from .images import Images
from .parts import Part, chosen
from .raw_outputs import GraphDistance
from .score import Scorer

QUANTIZE = "quantize"


class QuantSubject:
    """A model whose layers are quantized alone.

    Args:
        artifact: The float model at its input size, without its plans.
        plan: A calibrated plan.
        images: What is measured on.
        options: Metric, and what is quantized at a time.

    Raises:
        UsageError: A pattern matches nothing.
    """

    def __init__(self, artifact: Artifact, plan: Plan, images: Images, options: AnalyzeOptions) -> None:
        self._artifact, self._plan = artifact, plan
        self._members: dict[str, list[Point]] = {}
        for point in plan.points:
            name = point.name if options.per is Per.POINT else layer_of(point.name)
            self._members.setdefault(name, []).append(point)
        self.parts = tuple(Part(name) for name in chosen(self._members, options.only, "layer or point"))
        self._distance: GraphDistance | None = None
        self._scorer: Scorer | None = None
        if options.metric is AnalysisMetric.DISTILL:
            # image by image, as graphs are traced with a batch of one
            self._distance = GraphDistance(artifact.graph, [torch.from_numpy(i) for i, _ in images.inputs])
        else:
            self._scorer = Scorer(images, options.metric, TorchRunner(artifact.graph.module, artifact.info))

    def baseline(self) -> float:
        """Score with nothing quantized."""
        return self._score(())

    def measure(self, part: Part) -> tuple[float, str]:
        """Score with one layer or point quantized."""
        return self._score(tuple(self._members[part.name])), QUANTIZE

    def _score(self, points: tuple[Point, ...]) -> float:
        # a plan of these points alone: everything else computes in float
        module = simulate(self._artifact.graph, replace(self._plan, points=points))
        if self._distance is not None:
            return self._distance(module)
        assert self._scorer is not None
        return self._scorer(TorchRunner(module, self._artifact.info))


def calibrated(artifact: Artifact, scheme: Scheme, images: Iterable[np.ndarray], options: AnalyzeOptions) -> Plan:
    """A scheme's plan with ranges from images, at the options' bits.

    Raises:
        CalibrationError: There are too few images, or the model answers with NaN.
    """

    def spec(point: Point) -> QuantSpec:
        weight = point.kind is PointKind.WEIGHT
        return replace(point.spec, bits=options.weight_bits if weight else options.activation_bits)

    graph = artifact.graph
    # bits before ranges: how wide a range should be depends on its steps
    plan = derive(graph, scheme).with_specs(spec)
    return without_bias_overflow(graph, solve_plan(graph, plan, observe(graph, [plan], images)))
