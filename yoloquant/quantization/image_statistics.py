"""What images do inside the network: extremes, mean and deviation of every tensor, and the classes that are seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, fx

from ..errors import CalibrationError
from ..graph.head_outputs import HeadOutput, Readout, head_outputs
from ..graph.trace import Graph
from .calibration_audit import ImageStatistics
from .readout import expected

Moments = tuple[float, float, float, float]
"""Smallest and largest value, mean and standard deviation."""


def extremes(name: str, value: Tensor) -> tuple[float, float]:
    """The smallest and the largest value of a tensor.

    Raises:
        CalibrationError: There are NaN or infinite ones.
    """
    low, high = (float(v) for v in torch.aminmax(value))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise CalibrationError(
            f"calibration met NaN or infinite values at {name}; the model diverges on these images, or an image is not "
            "what it was trained on"
        )
    return low, high


def moments(value: Tensor, bounds: tuple[float, float]) -> Moments:
    """Extremes, mean and deviation; biased, since it describes these values and does not estimate others."""
    # torch.std_mean goes value by value: three vectorized passes take a quarter of its time
    mean = value.mean()
    deviation = (value - mean).square_().mean().sqrt()
    return (*bounds, float(mean), float(deviation))


def best_of_classes(raw: Mapping[HeadOutput, Tensor]) -> np.ndarray:
    """Best score of each class on one image; empty where the model has no class scores."""
    scores = [
        expected(head, value.detach()).flatten(2).amax(2)[0] if value.dim() > 2 else expected(head, value.detach())[0]
        for head, value in raw.items()
        if head.readout in {Readout.CLASS_SIGMOID, Readout.CLASS_SOFTMAX}
    ]
    return np.asarray(torch.stack(scores).amax(0).numpy() if scores else np.zeros(0), np.float64)


def describe(graph: Graph, points: Iterable[str], images: Iterable[np.ndarray]) -> ImageStatistics:
    """Run images through the float graph and keep what each did at some tensors; no range can be made of that.

    Args:
        graph: The canonical graph.
        points: Names of the tensors.
        images: float32 (1, channels, height, width), 0 to 1, letterboxed.

    Raises:
        CalibrationError: There are NaN or infinite activations.
    """
    walk = _Describe(graph, ImageStatistics(tuple(points)))
    with torch.no_grad():
        for image in images:
            walk.describe(torch.from_numpy(np.ascontiguousarray(image, np.float32)))
    return walk.statistics


class _Describe(fx.Interpreter):
    """Runs the body of the graph; frees what is no longer needed."""

    def __init__(self, graph: Graph, statistics: ImageStatistics) -> None:
        super().__init__(graph.module)
        self.extra_traceback = False  # an error is a sentence; torch would append its own stack to it
        self.statistics = statistics
        self.names = {graph.fx_name(op.name): op.name for op in graph.body()}
        self.outputs = {h.op.name: h for h in head_outputs(graph)}
        self._wanted = frozenset(statistics.points)
        self._moments: dict[str, Moments] = {}
        self._raw: dict[HeadOutput, Tensor] = {}

    def describe(self, image: Tensor) -> None:
        """Run one image."""
        self._moments, self._raw = {}, {}
        self.run(image, enable_io_processing=False)  # nothing comes out: the tail is not run
        self.statistics.add(self._moments, best_of_classes(self._raw))

    def run_node(self, n: fx.Node) -> object:
        name = self.names.get(n.name)
        if name is None and n.op != "get_attr":
            return None  # the decode tail: what comes out of it is not needed
        result = super().run_node(n)
        if name is not None and isinstance(result, Tensor):
            if name in self._wanted:
                self._moments[name] = moments(result, extremes(name, result))
            if name in self.outputs:
                self._raw[self.outputs[name]] = result
        return result
