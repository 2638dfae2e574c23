"""Float models with small weights: float16, int8 multiplied out again, or int8 with activations quantized on the way.

Edits of the flatbuffer that the converter wrote for float32. Operators that take constants as they are (``dynamic``)
get int8 filters; the others read theirs through DEQUANTIZE, which XNNPACK folds into its own weights when it loads
them. A filter's scales are its largest values per output channel / 127, as LiteRT's specification wants them:
symmetric, narrow range (https://ai.google.dev/edge/litert/models/quantization_spec).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...quantization.qparams import QParams, QuantSpec, quantize
from ..base import DYNAMIC, FP16, WEIGHTS
from .additions import add_tensor, cast, store
from .flatbuffer import operator_name, parse, serialize

_CHANNEL = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
"""Axis of the output channels of each operator's filter, which is its second input."""
_HYBRID = {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 12}
"""Version of an operator that takes float activations and an int8 filter with a scale per channel."""
_DEQUANTIZE_VERSION = {FP16: 3, WEIGHTS: 5}


def compress_weights(content: bytes, precision: str) -> tuple[bytes, int]:
    """Store the filters of a float model in fewer bits.

    Args:
        content: The float32 flatbuffer.
        precision: ``fp16``, ``weights`` or ``dynamic``.

    Returns:
        The edited flatbuffer, and how many filters were changed.
    """
    model = parse(content)
    graph = model.subgraphs[0]
    operators: list[Any] = []
    done: dict[int, int] = {}  # constant -> what reads it now
    for op in graph.operators:
        kind = operator_name(model.operatorCodes[op.opcodeIndex])
        if kind in _CHANNEL and (precision != DYNAMIC or kind in _HYBRID):
            if precision == DYNAMIC:
                _store_int8(model, int(op.inputs[1]), _CHANNEL[kind])
                code = model.operatorCodes[op.opcodeIndex]
                code.version = max(int(code.version), _HYBRID[kind])
                done[int(op.inputs[1])] = int(op.inputs[1])
            else:
                operators += _read_through(model, op, _CHANNEL[kind], precision, done)
        operators.append(op)
    graph.operators = operators
    return serialize(model), len(done)


def _read_through(model: Any, op: Any, axis: int, precision: str, done: dict[int, int]) -> list[Any]:
    """Let an operator read its constants through DEQUANTIZE: the filter, and in float16 its bias."""
    added = []
    inputs = np.array(op.inputs, np.int32)
    for position in (1, 2) if precision == FP16 else (1,):
        index = int(inputs[position]) if position < len(inputs) else -1
        if index < 0 or (index not in done and not _is_float_constant(model, index)):
            continue
        if index not in done:
            done[index] = add_tensor(model, index, model.subgraphs[0].tensors[index].name + b"_float")
            if precision == FP16:
                _store_half(model, index)
            else:
                _store_int8(model, index, axis)
            added.append(cast(model, "DEQUANTIZE", index, done[index], _DEQUANTIZE_VERSION[precision]))
        inputs[position] = done[index]
    op.inputs = inputs
    return added


def _is_float_constant(model: Any, index: int) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    tensor = model.subgraphs[0].tensors[index]
    data = model.buffers[tensor.buffer].data
    return bool(tensor.type == schema.TensorType.FLOAT32 and data is not None and len(data))


def _values(model: Any, index: int) -> np.ndarray:
    tensor = model.subgraphs[0].tensors[index]
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape(tensor.shape)


def _store_half(model: Any, index: int) -> None:
    from ai_edge_litert import schema_py_generated as schema

    store(model, index, schema.TensorType.FLOAT16, _values(model, index).astype(np.float16))


def _store_int8(model: Any, index: int, axis: int) -> None:
    from ai_edge_litert import schema_py_generated as schema

    if not _is_float_constant(model, index):
        return
    values = _values(model, index)
    others = tuple(i for i in range(values.ndim) if i != axis)
    largest = np.abs(values).max(axis=others)
    # A channel of zeros takes any scale but 0, which runtimes divide by.
    scale = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    params, spec = QParams(scale, np.zeros(scale.shape, np.int32)), QuantSpec(narrow_range=True, axis=axis)
    integers = quantize(values, params, spec).astype(np.int8)
    store(model, index, schema.TensorType.INT8, integers)
    quantization = schema.QuantizationParametersT()
    quantization.scale, quantization.zeroPoint = scale, np.zeros(scale.shape, np.int64)
    quantization.quantizedDimension = axis
    model.subgraphs[0].tensors[index].quantization = quantization
