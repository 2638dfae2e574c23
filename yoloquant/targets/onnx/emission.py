"""What a target chooses about Q/DQ ONNX; importing it imports no ONNX, since targets are listed without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

    from ...types import ModelInfo
    from ..graph_form import GraphForm

MARKER_DOMAIN, MARKER = "yoloquant", "Point"
"""The operator that stands for a point of the plan on its way through torch's exporter."""


class Weights(str, Enum):
    """How quantized weights are stored."""

    FLOAT = "float"  # float32 initializer -> QuantizeLinear -> DequantizeLinear
    INT8 = "int8"  # int8 initializer -> DequantizeLinear


@dataclass(frozen=True)
class Emission:
    """Choices of one target.

    Attributes:
        unsigned: Activations as uint8 (zero_point + 128) instead of int8.
        weights: How weights are stored.
        int32_bias: Store biases of fully quantized convolutions as int32, as integer kernels use them, and of linear
            layers with a float result.
    """

    unsigned: bool = False
    weights: Weights = Weights.FLOAT
    int32_bias: bool = False


def graph_rewrites(graph: GraphForm, info: ModelInfo) -> list[Callable[[ir.Model], Any]]:
    """Rewrites, for ``emit``, that give a graph what was asked for besides the network.

    Args:
        graph: What was asked for.
        info: The model without it.
    """
    rewrites: list[Callable[[ir.Model], Any]] = []
    if graph.several:
        from .batch import with_batch

        rewrites.append(with_batch(None if graph.dynamic else graph.batch))
    if graph.nms:
        from .nms import selecting

        rewrites.append(selecting(graph.described(info), graph.selection))
    return rewrites
