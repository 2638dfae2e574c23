"""Calibrate plans: run images through the float graph once, observe every root tensor, solve every range."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx

from ..errors import CalibrationError
from ..graph.trace import Graph
from .observers import Histogram, solve, solve_weight
from .plan import Plan, Point
from .qparams import QParams
from .range_options import CalibrationRecipe

logger = logging.getLogger(__name__)

Progress = Callable[[int, str], None]
MIN_IMAGES = 8


@dataclass(frozen=True)
class Observations:
    """What calibration saw: one histogram per tensor, and how many images."""

    histograms: dict[str, Histogram]
    images: int


class _Observe(fx.Interpreter):
    """Runs the graph and feeds chosen results to their histograms; frees what is no longer needed."""

    def __init__(self, graph: Graph, wanted: Iterable[str]) -> None:
        super().__init__(graph.module)
        self.extra_traceback = False  # an error is a sentence; torch would append its own stack to it
        self.names = {graph.fx_name(name): name for name in wanted}
        self.histograms = {name: Histogram() for name in self.names.values()}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        name = self.names.get(n.name)
        if name is not None and isinstance(result, torch.Tensor):
            try:
                self.histograms[name].update(result)
            except CalibrationError as exc:
                raise CalibrationError(
                    f"calibration met NaN or infinite values at {name}; the model diverges on these images, or an "
                    "image is not what it was trained on"
                ) from exc
        return result


def observe(
    graph: Graph, plans: Sequence[Plan], images: Iterable[np.ndarray], *, progress: Progress | None = None
) -> Observations:
    """Run calibration images through the float graph.

    Args:
        graph: The canonical graph.
        plans: Every plan whose points will be solved from this pass.
        images: float32 (1, channels, height, width), 0 to 1, letterboxed; consumed one by one.
        progress: Called after each image with the count so far and a label.

    Returns:
        One histogram per tensor that any of the plans quantizes; memory does not grow with the number of images.

    Raises:
        CalibrationError: There are fewer than MIN_IMAGES images, or NaN or infinite activations.
    """
    wanted = {p.name for plan in plans for p in plan.activations if not p.fixed}
    interpreter = _Observe(graph, sorted(wanted))
    count = 0
    with torch.inference_mode():
        for image in images:
            interpreter.run(torch.from_numpy(np.ascontiguousarray(image, np.float32)))
            count += 1
            if progress:
                progress(count, "calibrating")
    if count < MIN_IMAGES:
        raise CalibrationError(
            f"calibration got {count} images; at least {MIN_IMAGES} are needed and 64 to 256 are sensible. "
            "Point data= to a set with more training images"
        )
    return Observations(interpreter.histograms, count)


class Solver:
    """Solves ranges and remembers them, since the plans of several schemes mostly ask for the same."""

    def __init__(self, seen: Observations, recipe: CalibrationRecipe | None = None) -> None:
        self.seen, self.recipe = seen, recipe or CalibrationRecipe()
        self._known: dict[object, QParams] = {}

    def group(self, members: tuple[Point, ...]) -> tuple[QParams, str]:
        """Range of points that share one, and the algorithm that found it."""
        missing = [p.name for p in members if p.name not in self.seen.histograms]
        if missing:
            raise CalibrationError(f"{missing[0]} was not observed; observe with the plan that is to be solved")
        algorithm = self.recipe.algorithm(members[0].role) if len(members) == 1 else self.recipe.activation
        key = (tuple(p.name for p in members), members[0].spec, algorithm)
        if key not in self._known:
            hist = self.seen.histograms[members[0].name]
            for p in members[1:]:
                hist = hist.merged(self.seen.histograms[p.name])
            self._known[key] = solve(hist, members[0].spec, algorithm, percentile=self.recipe.percentile)
        return self._known[key], algorithm.value

    def weight(self, graph: Graph, point: Point) -> tuple[QParams, str]:
        """Range of a weight, and the algorithm that found it."""
        key = (point.name, point.spec)
        if key not in self._known:
            self._known[key] = solve_weight(weight_of(graph, point), point.spec, self.recipe.weight)
        return self._known[key], self.recipe.weight.value


def solve_plan(
    graph: Graph,
    plan: Plan,
    seen: Observations,
    recipe: CalibrationRecipe | None = None,
    *,
    keep: bool = True,
    solver: Solver | None = None,
) -> Plan:
    """Turn observations into the ranges of a plan.

    Args:
        graph: The canonical graph, for the weights.
        plan: The plan.
        seen: What ``observe`` returned for it.
        recipe: Algorithms per kind of point.
        keep: Leave points that already have a range (fixed or learned ones) as they are.
        solver: Shared between the plans of one observation; made from ``seen`` and ``recipe`` if None.

    Returns:
        The plan with every range filled in; constant activations are noted.
    """
    solver = solver or Solver(seen, recipe)
    params: dict[str, QParams] = {}
    algorithms: dict[str, str] = {}
    constant: list[str] = []
    for point in plan.weights:
        if keep and point.params is not None:
            continue
        params[point.name], algorithms[point.name] = solver.weight(graph, point)
    for members in plan.groups().values():
        open_points = [p for p in members if not (p.fixed or (keep and p.params is not None))]
        known = next((p.params for p in members if p.params is not None and not p.fixed), None)
        if not open_points:
            continue
        found, algorithm = (known, "tied") if keep and known is not None else solver.group(members)
        for p in open_points:
            params[p.name], algorithms[p.name] = found, algorithm
            if seen.histograms[p.name].low == seen.histograms[p.name].high:
                constant.append(p.name)
    if constant:
        logger.warning("%d activations are constant on every calibration image, first %s", len(constant), constant[0])
    return plan.with_params(params, algorithms)


def weight_of(graph: Graph, point: Point) -> np.ndarray:
    """The float weight that a weight point quantizes."""
    path = point.name.removesuffix(":weight")
    value = graph.module.get_parameter(f"{path}.weight")
    return np.asarray(value.detach().cpu().numpy(), np.float32)
