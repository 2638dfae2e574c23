"""What convolutions read, as second moments: weights are rounded for the results that they give, not for themselves.

Neighbouring pixels are bright together, and so are the channels of early layers. Rounding errors of a channel's weights
then add up instead of averaging out: its result is off by about the sum of the errors times the brightness. Among the
scales that fit a weight almost equally well some give errors that cancel, and second moments of the operand tell which:
the squared error of the result is ``d C d``, with the errors ``d`` of one channel's weights and the mean ``C`` of the
products of the values that they meet. AdaRound (https://arxiv.org/abs/2004.10568) starts from the same term; here only
the scale is chosen, so every integer stays the nearest one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from ..graph.ops import OpKind
from ..graph.trace import Graph
from .conv_operands import conv_operands
from .scheme import weight_point_name

LARGEST = 288
"""Weights per output channel up to which it is looked at: further back errors average out, and moments grow squared."""
RIDGE = 0.01
"""Share of the mean square that is added to every value's own: other images differ, and some values were never seen."""
_PLACES = 128  # per image: with 24 images ten times as many as the largest layer has weights


_GOLDEN = (5**0.5 - 1) / 2


class WeightInputs:
    """Collects second moments image by image, for every ungrouped convolution of few weights per output.

    Args:
        graph: The canonical graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._layers: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        for op in graph.body():
            if op.kind is not OpKind.CONV or not op.weight:
                continue
            shape = tuple(graph.module.get_parameter(op.weight).shape)
            if int(np.prod(shape[1:])) <= LARGEST:
                self._layers[graph.fx_name(op.name)] = weight_point_name(op), shape

    def add(self, node: fx.Node, arguments: tuple[Any, ...]) -> None:
        """Look at what a node is about to read."""
        if node.name not in self._layers:
            return
        point, shape = self._layers[node.name]
        x = arguments[0].detach()
        if x.shape[1] != shape[1]:
            return  # grouped
        kernel = (shape[2], shape[3])
        # every channel's weights meet the same values, in the order of the weight
        chosen = conv_operands(x, kernel, arguments[3:6], _spread).flatten(0, 1).double()
        self._sums[point] = self._sums.get(point, 0) + chosen @ chosen.T
        self._counts[point] = self._counts.get(point, 0) + chosen.shape[1]

    @property
    def moments(self) -> dict[str, np.ndarray]:
        """Mean products (weights per output, the same), by weight point, of layers that were seen often enough."""
        found = {}
        for point, total in self._sums.items():
            mean = (total / self._counts[point]).numpy()
            level = float(np.trace(mean)) / len(mean)
            if level > 0 and self._counts[point] >= 2 * len(mean):
                found[point] = mean + RIDGE * level * np.eye(len(mean))
        return found


def _spread(count: int) -> Tensor:
    # steps of the golden ratio: even over the image, and in no step with its rows
    return torch.from_numpy((np.arange(_PLACES) * _GOLDEN % 1 * count).astype(np.int64))
