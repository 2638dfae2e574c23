"""Which tensor of a ``.tflite`` is which operation of the graph that it was converted from.

Tensor names in a converted file are only hints. This walk relies on structure instead: weights are recognised by
their integers, and every other operation by its kind and by the tensors it reads, operations that only move values
left out. Scales play no part in it, so that comparing scales afterwards means something. Operations that agree in all
of that are taken in execution order; should two of them ever change places, that comparison notices.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, fx

from ...errors import TargetError
from ...graph.trace import QUANTIZATION_AGNOSTIC, WEIGHTED, Graph, OpKind, OpNode
from .flatbuffer import Flatbuffer, OpInfo
from .qdq import DEQUANTIZE, QUANTIZE

if TYPE_CHECKING:
    from .split_results import ResultPart

Key = tuple[str, tuple[int, ...], str]

_KINDS = {
    "CONV_2D": "weighted",
    "DEPTHWISE_CONV_2D": "weighted",
    "TRANSPOSE_CONV": "weighted",
    "FULLY_CONNECTED": "weighted",
    "BATCH_MATMUL": "matmul",
    "ADD": "add",
    "SUB": "add",
    "MUL": "mul",
    "DIV": "mul",
    "CONCATENATION": "concat",
    "LOGISTIC": "unit",
    "SOFTMAX": "unit",
    "AVERAGE_POOL_2D": "other",
    "MEAN": "other",
    "RELU": "relu",
    "RELU6": "relu",
}
_MOVES = frozenset(
    {
        "TRANSPOSE",
        "RESHAPE",
        "SLICE",
        "STRIDED_SLICE",
        "SPLIT",
        "SPLIT_V",
        "PAD",
        "PADV2",
        "MAX_POOL_2D",
        "RESIZE_NEAREST_NEIGHBOR",
        "QUANTIZE",
        "EXPAND_DIMS",
        "SQUEEZE",
        "GATHER",
        "UNPACK",
        "BROADCAST_TO",
        "TILE",
        "DEPTH_TO_SPACE",
        "SPACE_TO_DEPTH",
    }
)


@dataclass(frozen=True)
class Located:
    """Where a graph's quantized values are in a file.

    Attributes:
        activations: Tensor index by operation name; for a part of a result by the name of its fx node.
        weights: Tensor index by path of the weight parameter; a part has its own.
        biases: Tensor index by path of the weight parameter beside which the bias stands.
    """

    activations: dict[str, int] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    biases: dict[str, int] = field(default_factory=dict)


def locate(
    body: fx.GraphModule, graph: Graph, file: Flatbuffer, parts: Mapping[str, ResultPart] | None = None
) -> Located:
    """Find every computed tensor and every weight of a quantized body in the file made from it.

    Args:
        body: The body that was converted, with its quantize/dequantize pairs.
        graph: The canonical graph whose node names the body keeps.
        file: The converted file.
        parts: Convolutions that compute a part of an operation's result, by the names of their fx nodes.

    Returns:
        The tensors' indices.

    Raises:
        TargetError: An operation has no counterpart.
    """
    index = _Index(file)
    by_fx_name = {graph.fx_name(name): op for name, op in graph.ops.items()}
    roots: dict[fx.Node, int] = {}
    found = Located()
    for node in body.graph.nodes:
        part = (parts or {}).get(node.name)
        op = by_fx_name.get(part.operation if part else node.name)
        if op is None:
            # a pair has no counterpart of its own: it is the tensor's quantization
            if node.target in QUANTIZE | DEQUANTIZE and node.all_input_nodes[0] in roots:
                roots[node] = roots[node.all_input_nodes[0]]
        elif op.kind is OpKind.INPUT:
            roots[node] = found.activations[op.name] = index.input
        elif op.kind in QUANTIZATION_AGNOSTIC:
            roots[node] = roots[node.all_input_nodes[0]]
        else:
            _match(node, op, index, roots, found, body, part)
    return found


def _match(
    node: fx.Node,
    op: OpNode,
    index: _Index,
    roots: dict[fx.Node, int],
    found: Located,
    body: fx.GraphModule,
    part: ResultPart | None = None,
) -> None:
    name, weight = (node.name, part.weight) if part else (op.name, op.weight)
    # operands of additions may have changed places
    reads = tuple(sorted(roots[i] for i in node.all_input_nodes if i in roots))
    if op.kind in WEIGHTED:
        key: Key = ("weighted", reads, _digest(integers(body, node.args[1])))
    else:
        key = (op.kind.value, reads, "")
    match = index.take(key)
    # LiteRT stores it as the operator's fused activation
    if match is None and op.kind is OpKind.RELU and reads:
        roots[node] = found.activations[name] = reads[0]  # fused into the operation before it
        return
    if match is None:
        raise TargetError(
            f"{op.name} ({op.kind.value}) has no counterpart in the converted file, so its scale cannot be read back; "
            "the converter rewrote it, which this version of litert-torch is not known to do"
        )
    roots[node] = match.outputs[0]
    found.activations[name] = index.result(match)
    if op.kind in WEIGHTED:
        found.weights[weight] = match.inputs[1]
        place = 3 if match.kind == "TRANSPOSE_CONV" else 2
        if len(match.inputs) > place:
            found.biases[weight] = match.inputs[place]


class _Index:
    """Operators of a file by kind, by the tensors they read and by the digest of their weight."""

    def __init__(self, file: Flatbuffer) -> None:
        self._file = file
        self._ops: dict[Key, deque[OpInfo]] = defaultdict(deque)
        roots: dict[int, int] = {i: i for i in file.inputs}
        self.input = file.inputs[0]
        for op in file.ops:
            reads = [roots[i] for i in file.operands(op) if i in roots]
            if op.kind == "QUANTIZE" and op.inputs[0] in file.inputs:
                roots[op.outputs[0]] = self.input = op.outputs[0]
            elif op.kind in _MOVES and reads:
                roots.update(dict.fromkeys(op.outputs, reads[0]))
            elif op.kind in _KINDS:
                kind = "matmul" if file.multiplies_computed(op) else _KINDS[op.kind]
                # Computed in the file it has no integers to be recognised by.
                fixed = kind == "weighted" and file.tensors[op.inputs[1]].constant
                digest = _digest(_weight(file, op)) if fixed else ""
                self._ops[kind, tuple(sorted(reads)), digest].append(op)
                roots.update({out: out for out in op.outputs})

    def result(self, op: OpInfo) -> int:
        """The tensor of an operation's own range.

        An average pool cannot change the range; the converter lets a quantize operator do that behind it.
        """
        readers = [o for o in self._file.ops if op.outputs[0] in o.inputs]
        moved = op.kind == "AVERAGE_POOL_2D" and len(readers) == 1 and readers[0].kind == "QUANTIZE"
        return readers[0].outputs[0] if moved else op.outputs[0]

    def take(self, key: Key) -> OpInfo | None:
        """The next operator of this key in execution order; each is handed out once."""
        return self._ops[key].popleft() if self._ops.get(key) else None


def _weight(file: Flatbuffer, op: OpInfo) -> np.ndarray:
    """Integers of an operator's weight in the order of torch: (out, in, height, width), transposed (in, out, ...)."""
    values = file.values(op.inputs[1])
    if op.kind == "TRANSPOSE_CONV":  # (out, height, width, in)
        return values.transpose(3, 0, 1, 2)
    if op.kind == "DEPTHWISE_CONV_2D":  # (1, height, width, out)
        return values.transpose(3, 0, 1, 2)
    return values.transpose(0, 3, 1, 2) if values.ndim == 4 else values


def integers(body: fx.GraphModule, weight: object) -> np.ndarray:
    """Integers of a weight that passes a quantize/dequantize pair in the graph."""
    if not isinstance(weight, fx.Node) or weight.target not in DEQUANTIZE:
        raise TargetError(f"weight {weight} is not quantized, so its operation would stay float")
    quantized = weight.args[0]
    assert isinstance(quantized, fx.Node)
    values = [constant_of(body, a) if isinstance(a, fx.Node) else a for a in quantized.args]
    result: Tensor = quantized.target(*values)  # type: ignore[operator]
    return result.numpy()


def constant_of(body: fx.GraphModule, node: fx.Node) -> Tensor:
    """The parameter or buffer that a node reads."""
    value: object = body
    for part in str(node.target).split("."):
        value = getattr(value, part)
    assert isinstance(value, Tensor)
    return value.detach()


def _digest(values: np.ndarray) -> str:
    # with the shape: two kernels may hold the same integers in another arrangement
    content = np.ascontiguousarray(values, dtype=np.int8).tobytes()
    return hashlib.sha256(str(values.shape).encode() + content).hexdigest()
