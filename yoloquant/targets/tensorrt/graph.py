"""A read-only view of an ONNX graph that answers what the lint rules ask about quantization.

A tensor is *on a grid* when it holds multiples of a known scale: it comes out of a DequantizeLinear, perhaps through
operators that only move or select values. TensorRT moves Q/DQ across exactly these (measured with TensorRT-RTX 1.7.1: a
convolution behind DQ and Slice, Split, Reshape, Transpose, Pad, Squeeze, MaxPool, or a Concat of equal scales runs in
Int8; behind Resize, AveragePool, Relu, or a Concat of different scales it runs in float).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from onnx import numpy_helper

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
MOVES = frozenset({"Slice", "Split", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Pad", "Identity"})
FOLDABLE = frozenset({"Identity", "Cast", "Constant"})
_MOVES_OR_POOLS = MOVES | {"MaxPool"}


@dataclass(frozen=True)
class TensorGrid:
    """The grid that a tensor's values lie on.

    Attributes:
        scale: Its scale: 0-d per tensor, 1-d per channel.
        axis: The channel axis, where the scale is 1-d.
        node: The DequantizeLinear that put it there.
    """

    scale: np.ndarray
    axis: int
    node: onnx.NodeProto

    def same(self, other: TensorGrid) -> bool:
        """Whether both grids have the same scales."""
        # NaN stands for a computed scale, which is at least the same as itself.
        return np.array_equal(self.scale.ravel(), other.scale.ravel(), equal_nan=True)


class OnnxGraph:
    """Nodes, edges and constants of a model's main graph.

    Args:
        model: The model.
        planned: Names of the nodes that are meant to run in Int8; None if nobody said.
    """

    def __init__(self, model: onnx.ModelProto, planned: Collection[str] | None = None) -> None:
        self.model = model
        self.planned = planned
        self.nodes: tuple[onnx.NodeProto, ...] = tuple(model.graph.node)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = frozenset(value.name for value in model.graph.output)
        self._producers = {name: node for node in self.nodes for name in node.output if name}
        self._consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            # once for a node that reads a tensor twice
            for name in dict.fromkeys(node.input):
                self._consumers[name].append(node)

    def of_type(self, *kinds: str) -> Iterator[onnx.NodeProto]:
        """Nodes of given operator types, in graph order."""
        return (node for node in self.nodes if node.op_type in kinds)

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that computes a tensor; None for inputs, initializers and absent tensors."""
        return self._producers.get(tensor)

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor."""
        return self._consumers.get(tensor, [])

    def constant(self, tensor: str) -> onnx.TensorProto | None:
        """The initializer behind a tensor, looking through Identity, Cast and Constant nodes; None if computed."""
        if tensor in self.initializers:
            return self.initializers[tensor]
        node = self.producer(tensor)
        if node is None or node.op_type not in FOLDABLE:
            return None
        if node.op_type == "Constant":
            return next((a.t for a in node.attribute if a.name == "value"), None)
        return self.constant(node.input[0])

    def value(self, tensor: str) -> np.ndarray | None:
        """A constant's value; None if it is computed."""
        constant = self.constant(tensor)
        return None if constant is None else numpy_helper.to_array(constant)

    def is_weight(self, tensor: str) -> bool:
        """Whether a tensor is constant, perhaps behind Q/DQ and operators that only move values."""
        node = self.producer(tensor)
        if node is not None and (node.op_type in MOVES or node.op_type in (QUANTIZE, DEQUANTIZE)):
            return self.is_weight(node.input[0])
        return self.constant(tensor) is not None

    def grid_of(self, node: onnx.NodeProto) -> TensorGrid:
        """The grid of a Q or DQ node; a scale that is not constant counts as NaN."""
        scale = self.value(node.input[1])
        return TensorGrid(np.array(np.nan) if scale is None else scale, attribute(node, "axis", 1), node)

    def grid(self, tensor: str) -> TensorGrid | None:
        """The grid that a tensor lies on, if it lies on one."""
        node = self.producer(tensor)
        if node is None:
            return None
        if node.op_type == DEQUANTIZE:
            return self.grid_of(node)
        if node.op_type in _MOVES_OR_POOLS:
            return self.grid(node.input[0])
        if node.op_type == "Concat":
            grids = [self.grid(name) for name in node.input]
            first = grids[0]
            # with different scales the engine requantizes in float, and what reads the concat is not Int8
            if first is not None and all(g is not None and g.same(first) for g in grids):
                return first
        return None

    def quantizers(self, tensor: str) -> Iterator[onnx.NodeProto]:
        """The Q nodes that read a tensor, directly or through operators that only move values."""
        for node in self.consumers(tensor):
            if node.op_type == QUANTIZE and node.input[0] == tensor:
                yield node
            # As what is moved, not as a shape or an index.
            elif node.op_type in MOVES and node.input[0] == tensor:
                for output in node.output:
                    yield from self.quantizers(output)

    def readers(self, tensor: str) -> Iterator[onnx.NodeProto]:
        """The nodes that use a tensor's values, looking through operators that only move them."""
        for node in self.consumers(tensor):
            if node.op_type in MOVES:
                for output in node.output:
                    yield from self.readers(output)
            else:
                yield node

    def operands(self, node: onnx.NodeProto) -> tuple[str, str]:
        """Activation and weight tensor of a weighted operator (for a MatMul of two activations: its two inputs)."""
        first, second = node.input[0], node.input[1]
        return (second, first) if self.is_weight(first) and not self.is_weight(second) else (first, second)

    def is_quantized(self, node: onnx.NodeProto) -> bool:
        """Whether both operands of a weighted operator are on a grid."""
        return all(self.grid(tensor) is not None for tensor in self.operands(node))

    def ancestors(self, tensor: str, stop: str) -> tuple[list[onnx.NodeProto], bool]:
        """Nodes that a tensor is computed from, not searching beyond another tensor.

        Args:
            tensor: Where to start.
            stop: Where to turn back.

        Returns:
            The nodes met, and whether ``stop`` was met.
        """
        queue, seen, nodes, met = [tensor], {tensor}, [], False
        while queue:
            name = queue.pop()
            if name == stop:
                met = True
                continue
            node = self.producer(name)
            if node is None:
                continue
            nodes.append(node)
            # ONNX writes an absent optional input as an empty name
            fresh = [n for n in node.input if n and n not in seen]
            seen.update(fresh)
            queue.extend(fresh)
        return nodes, met

    def root(self, tensor: str) -> str:
        """The tensor whose values this one holds, looking back through Q/DQ and operators that only move values."""
        node = self.producer(tensor)
        if node is not None and (node.op_type in MOVES or node.op_type in (QUANTIZE, DEQUANTIZE)):
            return self.root(node.input[0])
        return tensor

    @cached_property
    def quantization_nodes(self) -> tuple[onnx.NodeProto, ...]:
        """All Q and DQ nodes."""
        return tuple(self.of_type(QUANTIZE, DEQUANTIZE))


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def label(node: onnx.NodeProto) -> str:
    """A node's name, or what it makes where it has none."""
    return node.name or (
        f"(unnamed {node.op_type} -> {node.output[0]})" if node.output else f"(unnamed {node.op_type})"
    )
