"""Transposed convolutions in integers, as mask prototypes have one.

litert-torch 0.10 fuses quantize and dequantize operators into convolutions and linear layers, but leaves a transposed
convolution between them in float. LiteRT's own integer form of it is as old as TensorFlow 2.2 (``TRANSPOSE_CONV``
version 2, with a bias version 3), with one weight scale for each output channel; the Edge TPU's documentation lists it
too. So the operator is rewritten to that form: the same operands, and what requantized behind it goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from ...errors import TargetError
from .flatbuffer import operator_name
from .mapping import constant_of, integers

aten = torch.ops.aten
KIND = "TRANSPOSE_CONV"
VERSION, WITH_BIAS = 2, 3
INT32 = np.iinfo(np.int32)
MOVES = {"TRANSPOSE": 2, "RESHAPE": 1}
"""Operators that may lie between, with the version that takes int8."""


@dataclass(frozen=True)
class TransposedWeight:
    """A transposed convolution of a quantized body.

    Attributes:
        values: int8 (out, height, width, in), as LiteRT stores it.
        scale: float32, one for each output channel, or a single one.
        bias: float32 (out,); None if it has none.
    """

    values: np.ndarray
    scale: np.ndarray
    bias: np.ndarray | None


def transposed_weights(body: fx.GraphModule) -> list[TransposedWeight]:
    """Every transposed convolution of a quantized body, in execution order.

    Raises:
        TargetError: One has groups, which LiteRT's operator does not know, or its weight is not quantized.
    """
    return [_read(body, node) for node in body.graph.nodes if node.target is aten.conv_transpose2d.input]


def _read(body: fx.GraphModule, node: fx.Node) -> TransposedWeight:
    if len(node.args) > 6 and node.args[6] != 1:
        raise TargetError(f"{node.name} is a transposed convolution in {node.args[6]} groups, which LiteRT has not")
    weight = node.args[1]
    values = integers(body, weight)
    assert isinstance(weight, fx.Node)  # ``integers`` has checked that it is a dequantize node
    scale = weight.args[1]
    scales = constant_of(body, scale).numpy() if isinstance(scale, fx.Node) else np.array([scale])
    bias = node.args[2] if len(node.args) > 2 else None
    biases = constant_of(body, bias).numpy() if isinstance(bias, fx.Node) else None
    # From torch's (in, out, height, width).
    return TransposedWeight(np.ascontiguousarray(values.transpose(1, 2, 3, 0)), scales.astype(np.float32), biases)


def make_integer(model: Any, weights: Sequence[TransposedWeight]) -> None:
    """Turn float transposed convolutions of a converted model into integer ones, in place.

    Args:
        model: Object form of the flatbuffer.
        weights: What ``transposed_weights`` found in the body that it was converted from.

    Raises:
        TargetError: The file has another number of them, or one does not lie between quantized tensors.
    """
    graph = model.subgraphs[0]
    found = [op for op in graph.operators if _kind(model, op) == KIND]
    if len(found) != len(weights):
        raise TargetError(
            f"the converted file has {len(found)} transposed convolutions, the model {len(weights)}; this version of "
            "litert-torch is not known to do that"
        )
    for op, weight in zip(found, weights, strict=True):
        _rewrite(model, op, weight)
        model.operatorCodes[op.opcodeIndex].version = VERSION if weight.bias is None else WITH_BIAS
    _remove_dead(graph)


def _rewrite(model: Any, op: Any, weight: TransposedWeight) -> None:
    graph = model.subgraphs[0]
    source, result = _source(model, int(op.inputs[2])), _result(model, int(op.outputs[0]))
    step = float(np.float32(graph.tensors[source].quantization.scale[0]))
    name = graph.tensors[int(op.outputs[0])].name
    # In LiteRT's order: shape of the result, weight, input, bias.
    operands = [int(op.inputs[0]), _add(model, name + b"_weight", weight.values, weight.scale), source]
    if weight.bias is not None:
        # The accumulator's step, in which LiteRT adds a bias: that of the input times that of the channel.
        steps = weight.scale.astype(np.float64) * step
        codes = np.rint(weight.bias.astype(np.float64) / steps)
        values = np.clip(codes, INT32.min, INT32.max).astype(np.int32)
        # As many scales as the weight has: XNNPACK refuses to load a file that has one there and several here.
        operands.append(_add(model, name + b"_bias", values, steps))
    op.inputs, op.outputs = np.array(operands, np.int32), np.array([result], np.int32)


def _kind(model: Any, op: Any) -> str:
    return operator_name(model.operatorCodes[op.opcodeIndex])


def _source(model: Any, index: int) -> int:
    """The quantized tensor that a float operand is the real values of; what moves them there is made integer too."""
    graph = model.subgraphs[0]
    producers = [op for op in graph.operators if index in op.outputs]
    kind = _kind(model, producers[0]) if producers else ""
    if kind == "DEQUANTIZE":
        return int(producers[0].inputs[0])
    # Where nothing else reads it: another reader would get integers for real values.
    if kind in MOVES and len(_readers(graph, index)) == 1:
        inner = _source(model, int(producers[0].inputs[0]))
        producers[0].inputs = np.array([inner, *producers[0].inputs[1:]], np.int32)
        _retype(model, producers[0], index, inner)
        return index
    raise TargetError(f"a transposed convolution reads tensor {index}, which is no quantized one")


def _result(model: Any, index: int) -> int:
    """The quantized tensor that a float result becomes, its bias added; the operators that make it so are taken away.

    What moves it on its way is made integer, and the tensor in front of that is returned.
    """
    graph = model.subgraphs[0]
    readers = _readers(graph, index)
    kind = _kind(model, readers[0]) if len(readers) == 1 else ""
    # The ADD is the bias, which the integer operator adds by itself.
    if kind in {"QUANTIZE", "ADD"}:
        following = int(readers[0].outputs[0])
        result = following if kind == "QUANTIZE" else _result(model, following)
        graph.operators.remove(readers[0])
        return result
    if kind in MOVES:
        inner = _result(model, int(readers[0].outputs[0]))
        readers[0].outputs = np.array([inner], np.int32)
        _retype(model, readers[0], index, inner)
        return index
    raise TargetError(f"the result of a transposed convolution, tensor {index}, is not quantized at once")


def _readers(graph: Any, index: int) -> list[Any]:
    return [op for op in graph.operators if index in op.inputs]


def _retype(model: Any, move: Any, index: int, like: int) -> None:
    """Give a tensor the type and scale of another one that an operator only moves."""
    tensors = model.subgraphs[0].tensors
    tensors[index].type, tensors[index].quantization = tensors[like].type, tensors[like].quantization
    code = model.operatorCodes[move.opcodeIndex]
    code.version = max(int(code.version), MOVES[operator_name(code)])


def _add(model: Any, name: bytes, values: np.ndarray, scale: np.ndarray) -> int:
    """Append a constant, one scale for each slice of its first axis or a single one; returns its index."""
    from ai_edge_litert import schema_py_generated as schema

    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.name, tensor.shape, tensor.hasRank = name, np.array(values.shape, np.int32), True
    tensor.type = schema.TensorType.INT8 if values.dtype == np.int8 else schema.TensorType.INT32
    tensor.buffer = len(model.buffers) - 1
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = np.asarray(scale, np.float32)
    tensor.quantization.zeroPoint = np.zeros(len(scale), np.int64)
    graph = model.subgraphs[0]
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _remove_dead(graph: Any) -> None:
    """Drop operators whose results nobody reads."""
    # Until nothing changes: what fed a dead operator may be dead, too.
    while True:
        read = {int(i) for op in graph.operators for i in op.inputs} | {int(i) for i in graph.outputs}
        kept = [op for op in graph.operators if read.intersection(int(i) for i in op.outputs)]
        if len(kept) == len(graph.operators):
            return
        graph.operators = kept
