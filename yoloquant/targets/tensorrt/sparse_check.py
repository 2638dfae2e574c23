"""Check that an exported ONNX file is 2:4 in the very integers that an engine reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ModelError, PruneError
from ...sparsity.two_four import Check24, check_24

if TYPE_CHECKING:
    from onnx import NodeProto

    from .graph import OnnxGraph

_ONE_TO_ONE = "one2one_"  # what Ultralytics calls the branch of an end-to-end head that needs no NMS


@dataclass(frozen=True)
class OnnxCheck24:
    """2:4 sparsity of a file.

    Attributes:
        layers: What was found in the weight of each planned layer, by parameter name.
        quantized: Those whose weight is integers; the others are float.
        absent: Planned layers that the file lacks, such as the branch of a head that exports leave out.
    """

    layers: dict[str, Check24]
    quantized: tuple[str, ...]
    absent: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[str, ...]:
        """Layers that are not 2:4."""
        return tuple(name for name, check in self.layers.items() if not check.ok)

    @property
    def ok(self) -> bool:
        """Whether every planned layer of the file is 2:4."""
        return not self.broken


def check_onnx_24(path: Path, layers: Iterable[str]) -> OnnxCheck24:
    """Read an ONNX file back and check the weights that were planned to be 2:4.

    Weights behind QuantizeLinear and DequantizeLinear are taken as the integers between the two, less their zero_point:
    rounding may add zeros, and with zero_point 0 it takes none away.

    Args:
        path: The file, as a target wrote it.
        layers: Parameter names, such as the keys of ``masks_24(...).masks``.

    Returns:
        What was found.

    Raises:
        ModelError: There is no readable file.
        PruneError: A planned layer is not in the file, or its weight is not a constant.
    """
    graph = _read(path)
    nodes = _layers(graph)
    checks: dict[str, Check24] = {}
    quantized, absent = [], []
    for name in layers:
        layer = name.removesuffix(".weight")
        # Absent, and no mistake: an export holds one of the two branches of an end-to-end head.
        if layer not in nodes and any(twin in nodes for twin in _twins(layer)):
            absent.append(name)
            continue
        if layer not in nodes:
            raise PruneError(
                f"{path} has no layer '{layer}' that was planned to be 2:4; it has {', '.join(list(nodes)[:6])} ... "
                "Export the model that the plan was made for"
            )
        values, integers = _weight(graph, nodes[layer], path)
        checks[name] = check_24(values)
        if integers:
            quantized.append(name)
    return OnnxCheck24(checks, tuple(quantized), tuple(absent))


def _read(path: Path) -> OnnxGraph:
    import onnx

    from .graph import OnnxGraph

    if not path.is_file():
        raise ModelError(f"there is no ONNX file at {path}; export the model first")
    try:
        return OnnxGraph(onnx.load(path))
    except Exception as exc:  # protobuf raises classes of its own, which differ between versions
        raise ModelError(f"{path} is no readable ONNX file ({exc}); export the model again") from exc


def _layers(graph: OnnxGraph) -> dict[str, NodeProto]:
    """Nodes by module path: quantized ones are named by it, of others the constant tells."""
    layers: dict[str, NodeProto] = {}
    for node in graph.of_type("Conv", "Gemm", "MatMul"):
        tensor = graph.operands(node)[1]
        while (producer := graph.producer(tensor)) is not None and producer.input:
            tensor = producer.input[0]
        # Both names: which one a node bears hangs on whether its weight was quantized.
        layers[tensor.removesuffix(".weight")] = node
        layers[node.name] = node
    return layers


def _twins(layer: str) -> Iterator[str]:
    """The same layer in the other branch of an end-to-end head; an export holds one of the two."""
    parts = layer.split(".")
    for i, part in enumerate(parts):
        other = part.removeprefix(_ONE_TO_ONE) if part.startswith(_ONE_TO_ONE) else _ONE_TO_ONE + part
        yield ".".join([*parts[:i], other, *parts[i + 1 :]])


def _weight(graph: OnnxGraph, node: NodeProto, path: Path) -> tuple[np.ndarray[Any, Any], bool]:
    """A weight as (K, C, ...) numbers that are zero where the engine multiplies by zero, and whether it is integers."""
    from .graph import attribute

    tensor = graph.operands(node)[1]
    chain: list[NodeProto] = []
    while (value := graph.value(tensor)) is None:
        producer = graph.producer(tensor)
        if producer is None:
            raise PruneError(f"the weight of {node.name} in {path} is computed, not a constant; it cannot be 2:4")
        chain.append(producer)
        tensor = producer.input[0]
    integers = False
    for step in reversed(chain):
        if step.op_type == "QuantizeLinear":
            value, integers = _quantize(graph, step, value), True
        elif step.op_type == "DequantizeLinear":
            value, integers = value.astype(np.int32) - _along(graph, step, 2, value.ndim).astype(np.int32), True
        elif step.op_type == "Transpose":
            order = next((tuple(a.ints) for a in step.attribute if a.name == "perm"), None)
            value = np.transpose(value, order)
        else:
            raise PruneError(f"the weight of {node.name} in {path} goes through {step.op_type}; it cannot be checked")
    transposed = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))
    return (value.T if transposed else value), integers


def _quantize(graph: OnnxGraph, node: NodeProto, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What QuantizeLinear makes of a constant: round half to even, saturate (ONNX operator specification)."""
    scale, zero = _along(graph, node, 1, value.ndim), _along(graph, node, 2, value.ndim)
    limits = np.iinfo(zero.dtype)
    return np.asarray(np.clip(np.rint(value / scale) + zero, limits.min, limits.max).astype(zero.dtype))


def _along(graph: OnnxGraph, node: NodeProto, position: int, ndim: int) -> np.ndarray[Any, Any]:
    """Scale or zero_point of a Q or DQ node, shaped to multiply with its operand."""
    from .graph import attribute

    if position >= len(node.input) or not node.input[position]:
        return np.zeros((), np.uint8)  # the default of the specification
    value = graph.value(node.input[position])
    if value is None:
        raise PruneError(f"the scale of {node.name} is computed, not a constant")
    if value.size == 1:
        return np.asarray(value).reshape(())
    axis = attribute(node, "axis", 1) % ndim
    return np.asarray(value).reshape([-1 if i == axis else 1 for i in range(ndim)])
