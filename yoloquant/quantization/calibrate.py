"""Calibrate plans: run images through the float graph once, observe every root tensor, solve every range."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
import torch
from torch import Tensor, fx

from ..errors import CalibrationError
from ..graph.head_outputs import HeadOutput, head_outputs
from ..graph.trace import Graph
from .calibration_audit import ImageStatistics
from .head_ranges import ALGORITHM as READOUT
from .head_ranges import HeadColumns
from .image_statistics import Moments, best_of_classes, extremes, moments
from .importance import Importance, weighted
from .keypoint_ranges import joined, mixed_heads, part_name
from .observers import Histogram, compute_qparams, compute_weight_qparams
from .plan import Plan, Point
from .qparams import QParams, QuantSpec
from .range_options import OUTPUT_AWARE, Algorithm, CalibrationRecipe
from .score_shift import IMAGES as SHIFT_IMAGES
from .seen_scores import SeenScores, seen
from .weight_inputs import WeightInputs

logger = logging.getLogger(__name__)

Progress = Callable[[int, str], None]
# Below this a range is one image's luck; the audit says how many would settle them.
MIN_IMAGES = 8
GRADIENT_IMAGES = 24
RESULT = "mse_result"  # the range of a weight with the least squared error of what it computes
# Share of the weight that counts all values alike: two dozen images with gradients miss values that others will have.
UNIFORM = 0.1


@dataclass(frozen=True)
class Observations:
    """What calibration saw.

    Attributes:
        histograms: Values of each tensor.
        images: How many images there were.
        importance: The same by squared gradient, of the first images; empty without gradients.
        heads: What the heads' last layers read; None if that was not looked at.
        statistics: What each image did inside the network, for the audit; None if that was not looked at.
        moments: Second moments of what small convolutions read, by weight point.
        parts: Channels of what is observed by itself within a tensor, by its name, by the tensor's.
        scores: Class scores that the float model does not rule out, of each of the first images: score shifts are
            fitted on these, and need no pass of the float model.
    """

    histograms: dict[str, Histogram]
    images: int
    importance: Mapping[str, Histogram] = field(default_factory=dict)
    heads: HeadColumns | None = None
    statistics: ImageStatistics | None = None
    moments: Mapping[str, np.ndarray] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)
    scores: Sequence[Sequence[SeenScores]] = ()


class _Observe(fx.Interpreter):
    """Runs the body of the graph and feeds chosen results to their histograms; frees what is no longer needed."""

    def __init__(self, graph: Graph, wanted: Iterable[str]) -> None:
        super().__init__(graph.module)
        self._canonical = graph
        self.extra_traceback = False  # an error is a sentence; torch would append its own stack to it
        self.names = {graph.fx_name(op.name): op.name for op in graph.body()}
        self.histograms = {name: Histogram() for name in wanted}
        self.statistics = ImageStatistics(tuple(self.histograms))
        # what has a range of its own within a tensor is observed by itself, besides the tensor
        self.parts = {
            name: {part_name(name, part): list(channels) for part, channels in parts.items()}
            for name, parts in mixed_heads(graph).items()
            if name in self.histograms
        }
        self.histograms |= {part: Histogram() for parts in self.parts.values() for part in parts}
        self.importance = Importance(graph, self.histograms, self.parts)
        self.outputs = {h.op.name: h for h in head_outputs(graph)}
        # collected in the same pass over the images, which is what calibration takes its time for
        self.columns = HeadColumns(graph, tuple(self.outputs.values()))
        self._kept = self.columns.wanted | frozenset(self.importance.products.values())
        self.inputs = WeightInputs(graph)
        self.scores: list[tuple[SeenScores, ...]] = []
        self._values: dict[str, Tensor] = {}
        self._raw: dict[HeadOutput, Tensor] = {}
        self._moments: dict[str, Moments] = {}

    def observe(self, image: np.ndarray, *, gradients: bool) -> None:
        """Run one image, and its backward pass if gradients are wanted."""
        x = torch.from_numpy(np.ascontiguousarray(image, np.float32))
        self._values, self._raw, self._moments = {}, {}, {}
        # no_grad and not inference_mode: the same interpreter runs both kinds of image, and inference tensors cannot
        # enter a backward pass
        with torch.enable_grad() if gradients else torch.no_grad():
            self.run(x.requires_grad_(gradients), enable_io_processing=False)  # nothing comes out: the tail is not run
            self.columns.add(self._values, self._raw)
            self.statistics.add(self._moments, best_of_classes(self._raw))
            if len(self.scores) < SHIFT_IMAGES:
                self.scores.append(seen(self._canonical, self._raw))
            if gradients:
                self.importance.backward(self._raw)
        # the graph of the backward pass hangs on them: an image's activations would live until the next one
        self._values, self._raw = {}, {}

    def run_node(self, n: fx.Node) -> object:
        name = self.names.get(n.name)
        # weights are not what gradients are asked of, and would keep the whole backward graph alive
        if n.op == "get_attr":
            value = super().run_node(n)
            return value.detach() if isinstance(value, Tensor) else value
        # raw head outputs are the last that is looked at; anchors and decode cost time and tell nothing
        if name is None:
            return None  # the decode tail: what comes out of it is not needed
        self.inputs.add(n, self.map_nodes_to_values(n.args, n))  # type: ignore[arg-type]
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self._look(name, result)
        return result

    def _look(self, name: str, result: Tensor) -> None:
        if name in self.histograms:
            value = result.detach()
            # extremes and counts at once: tensors are not kept
            bounds = extremes(name, value)
            self.histograms[name].update(value, bounds=bounds)
            for part, channels in self.parts.get(name, {}).items():
                self.histograms[part].update(value[:, channels])
            self._moments[name] = moments(value, bounds)
        if name in self._kept:
            self._values[name] = result
        if name in self.outputs:
            self._raw[self.outputs[name]] = result
        self.importance.watch(name, result, self._values, self._moments)


def observed(plans: Sequence[Plan]) -> tuple[str, ...]:
    """Names of the tensors that calibration of some plans looks at."""
    # prescribed ranges are not looked at: no data could change them
    names = {p.name for plan in plans for p in plan.activations if not p.fixed}
    # sorted, so that the audit's fingerprint does not depend on the order of the schemes
    return tuple(sorted(names))


def observe(
    graph: Graph,
    plans: Sequence[Plan],
    images: Iterable[np.ndarray],
    *,
    gradients: int = GRADIENT_IMAGES,
    progress: Progress | None = None,
) -> Observations:
    """Run calibration images through the float graph.

    Args:
        graph: The canonical graph.
        plans: Every plan whose points will be solved from this pass.
        images: float32 (1, channels, height, width), 0 to 1, letterboxed; consumed one by one.
        gradients: So many of the first images get a backward pass, for what errors do to the detections.
        progress: Called after each image with the count so far and a label.

    Returns:
        What each tensor held that any of the plans quantizes; histograms do not grow with the number of images, columns
        of the heads by some megabytes.

    Raises:
        CalibrationError: There are fewer than MIN_IMAGES images, or NaN or infinite activations.
    """
    interpreter = _Observe(graph, observed(plans))
    # a backward pass keeps every activation of an image: large inputs would not fit
    gradients = gradients if interpreter.importance.affordable else 0
    count = 0
    for image in images:
        # the first ones are as good as any: hashes of names and the seed decide the sample's order
        interpreter.observe(image, gradients=count < gradients)
        count += 1
        if progress:
            progress(count, "calibrating")
    # only known now: images are consumed one by one
    if count < MIN_IMAGES:
        raise CalibrationError(
            f"calibration got {count} images; at least {MIN_IMAGES} are needed and 64 to 256 are sensible. "
            "Point data= to a set with more training images"
        )
    importance = interpreter.importance.histograms if gradients else {}
    i = interpreter
    return Observations(i.histograms, count, importance, i.columns, i.statistics, i.inputs.moments, i.parts, i.scores)


class Solver:
    """Solves ranges and remembers them, since the plans of several schemes mostly ask for the same."""

    def __init__(self, observations: Observations, recipe: CalibrationRecipe | None = None) -> None:
        self.observations, self.recipe = observations, recipe or CalibrationRecipe()
        self._known: dict[object, tuple[QParams, str]] = {}

    def group(self, members: tuple[Point, ...]) -> tuple[QParams, str]:
        """Range of points that share one, and the algorithm that found it."""
        missing = [p.name for p in members if p.name not in self.observations.histograms]
        if missing:
            raise CalibrationError(f"{missing[0]} was not observed; observe with the plan that is to be solved")
        # tensors that share a range may have different roles: none of their algorithms fits them all
        algorithm = self.recipe.algorithm(members[0].role) if len(members) == 1 else self.recipe.activation
        # the same tensors in the same representation have one answer, whichever scheme asks
        key = (tuple(p.name for p in members), members[0].spec, algorithm)
        if key not in self._known:
            self._known[key] = self._solved(members, algorithm)
        return self._known[key]

    def _solved(self, members: tuple[Point, ...], algorithm: Algorithm) -> tuple[QParams, str]:
        names, spec = [p.name for p in members], members[0].spec
        if spec.axis is not None:
            (name,), alone = names, replace(spec, axis=None)
            parts = self.observations.parts[name]
            return joined(parts, {part: self._searched([part], alone, algorithm) for part in parts}), algorithm.value
        if self.recipe.output_aware and algorithm in OUTPUT_AWARE:
            # known weights and the real readout beat first-order gradients wherever they can be used
            behind = self._behind_heads(members)
            if behind is not None:
                return behind, READOUT
        return self._searched(names, spec, algorithm), algorithm.value

    def _searched(self, names: Sequence[str], spec: QuantSpec, algorithm: Algorithm) -> QParams:
        """The range with the least error of observed values, which count by their importance."""
        hist = self._seen(names)
        if self.recipe.output_aware and algorithm in OUTPUT_AWARE:
            known = [self.observations.importance[name] for name in names if name in self.observations.importance]
            hist = weighted(hist, _merged(known) if len(known) == len(names) else None, UNIFORM)
        return compute_qparams(hist, spec, algorithm, percentile=self.recipe.percentile)

    def _seen(self, names: Sequence[str]) -> Histogram:
        # exact, since every histogram's radius is a power of two: as if all tensors had been one
        return _merged([self.observations.histograms[name] for name in names])

    def _behind_heads(self, members: tuple[Point, ...]) -> QParams | None:
        # A tensor that shares its range with others is not free to take the one that its head would like.
        if len(members) > 1 or self.observations.heads is None:
            return None
        hist = self.observations.histograms[members[0].name]
        if hist.low == hist.high:
            return None
        return self.observations.heads.params(members[0].name, hist, members[0].spec)

    def weight(self, graph: Graph, point: Point) -> tuple[QParams, str]:
        """Range of a weight, and the algorithm that found it."""
        # the recipe has one algorithm for weights, so it need not be part of the key
        key = (point.name, point.spec)
        if key not in self._known:
            aware = self.recipe.output_aware and self.recipe.weight is Algorithm.MSE and point.spec.axis == 0
            moments = self.observations.moments.get(point.name) if aware else None
            params = compute_weight_qparams(weight_of(graph, point), point.spec, self.recipe.weight, moments)
            self._known[key] = params, self.recipe.weight.value if moments is None else RESULT
        return self._known[key]


def _merged(histograms: Sequence[Histogram]) -> Histogram:
    return reduce(Histogram.merged, histograms)


def solve_plan(
    graph: Graph,
    plan: Plan,
    observations: Observations,
    recipe: CalibrationRecipe | None = None,
    *,
    keep: bool = True,
    solver: Solver | None = None,
) -> Plan:
    """Turn observations into the ranges of a plan.

    Args:
        graph: The canonical graph, for the weights.
        plan: The plan.
        observations: What ``observe`` returned for it.
        recipe: Algorithms per kind of point.
        keep: Leave points that already have a range (fixed or learned ones) as they are.
        solver: Shared between the plans of one observation; made from ``observations`` and ``recipe`` if None.

    Returns:
        The plan with every range filled in; constant activations are noted.
    """
    solver = solver or Solver(observations, recipe)
    params: dict[str, QParams] = {}
    algorithms: dict[str, str] = {}
    constant: list[str] = []
    for point in plan.weights:
        if keep and point.params is not None:
            continue
        params[point.name], algorithms[point.name] = solver.weight(graph, point)
    # one range for all members of a tie, from their values together
    for members in plan.groups().values():
        open_points = [p for p in members if not (p.fixed or (keep and p.params is not None))]
        # a learned or stored range of one member binds the others of its tie
        known = next((p.params for p in members if p.params is not None and not p.fixed), None)
        if not open_points:
            continue
        found, algorithm = (known, "tied") if keep and known is not None else solver.group(members)
        for p in open_points:
            params[p.name], algorithms[p.name] = found, algorithm
            # nothing to measure an error on: the range is the value itself, and another image may exceed it
            if observations.histograms[p.name].low == observations.histograms[p.name].high:
                constant.append(p.name)
    if constant:
        logger.warning("%d activations are constant on every calibration image, first %s", len(constant), constant[0])
    return plan.with_params(params, algorithms)


def weight_of(graph: Graph, point: Point) -> np.ndarray:
    """The float weight that a weight point quantizes."""
    path = point.name.removesuffix(":weight")
    value = graph.module.get_parameter(f"{path}.weight")
    return np.asarray(value.detach().cpu().numpy(), np.float32)
