"""From a converted int8 file on coarse grids to one with int16 activations ("16x8"), on its object form.

Activations become int16 with a zero point of 0, weights stay as they are, biases become int64 on the finer steps of the
accumulator. XNNPACK has no kernels for such operators (ai-edge-litert 2.3): the interpreter's own compute them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import TargetError
from .additions import store
from .flatbuffer import operator_name, parse, serialize
from .wide import fine_scale

_VERSIONS = {
    "ADD": 3,
    "AVERAGE_POOL_2D": 3,
    "BATCH_MATMUL": 3,
    "CONCATENATION": 3,
    "CONV_2D": 4,
    "DEPTHWISE_CONV_2D": 5,
    "DEQUANTIZE": 3,
    "EXPAND_DIMS": 1,
    "FULLY_CONNECTED": 7,
    "GATHER": 4,
    "LOGISTIC": 3,
    "MAX_POOL_2D": 3,
    "MEAN": 3,
    "MUL": 4,
    "PAD": 3,
    "PADV2": 3,
    "QUANTIZE": 2,
    "RELU": 3,
    "RELU6": 3,
    "RESHAPE": 1,
    "RESIZE_NEAREST_NEIGHBOR": 4,
    "SLICE": 4,
    "SOFTMAX": 3,
    "SPLIT": 4,
    "SPLIT_V": 2,
    "SQUEEZE": 1,
    "STRIDED_SLICE": 4,
    "SUB": 5,
    "TRANSPOSE": 5,
    "TRANSPOSE_CONV": 3,
    "UNPACK": 4,
}
"""Operators with int16 kernels, and the version that TensorFlow gives them (op_version.cc)."""
_WEIGHT = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
_COPIES = frozenset(
    {
        "CONCATENATION", "EXPAND_DIMS", "GATHER", "MAX_POOL_2D", "PAD", "PADV2", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR",
        "SLICE", "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE", "UNPACK",
    }
)  # fmt: skip
"""Operators that copy codes; int16 kernels do not look whether both ends have one scale, as int8 kernels do."""
_INT16 = np.iinfo(np.int16)
_INT64 = float(np.iinfo(np.int64).max)


def widen_file(content: bytes, biases: Mapping[int, np.ndarray]) -> bytes:
    """Give a file's activations 16 bits.

    Args:
        content: A finished int8 file, on the grids of ``wide.coarse``.
        biases: Biases in float32 by index of their tensor; what is not among them is taken from its integers.

    Returns:
        The edited flatbuffer; tensors keep their indices.

    Raises:
        TargetError: An operator has no int16 kernel, or copies codes from one scale to another.
    """
    model = parse(content)
    graph = model.subgraphs[0]
    second = {int(op.inputs[_WEIGHT[kind]]) for op in graph.operators if (kind := _kind(model, op)) in _WEIGHT}
    # an attention with one head multiplies two computed tensors so, which both become int16
    weights = {index for index in second if _constant(model, index)}
    wide = {i for i in range(len(graph.tensors)) if i not in weights and _is_int8(graph.tensors[i])}
    for index in sorted(wide):
        _widen_tensor(model, index)
    stored: dict[int, np.ndarray] = {}
    for op in graph.operators:
        kind = _kind(model, op)
        used = [int(i) for i in (*op.inputs, *op.outputs) if int(i) in wide]
        if not used:
            continue
        if kind not in _VERSIONS:
            raise TargetError(
                f"LiteRT has no 16-bit kernel of {kind}, which this network needs; export litert (int8) or litert:fp32"
            )
        if kind in _COPIES and len({graph.tensors[i].quantization.scale[0] for i in used}) > 1:
            raise TargetError(f"a {kind} joins tensors of several scales, which LiteRT would copy unchanged")
        code = model.operatorCodes[op.opcodeIndex]
        code.version = max(int(code.version), _VERSIONS[kind])
        if kind in _WEIGHT:
            _widen_bias(model, op, kind, biases, stored)
    return serialize(model)


def _widen_tensor(model: Any, index: int) -> None:
    """The finer grid of a tensor; a constant keeps its values exactly."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = model.subgraphs[0].tensors[index]
    grid = tensor.quantization
    scale, zero = np.asarray(grid.scale, np.float32), np.asarray(grid.zeroPoint, np.int64)
    if _constant(model, index):
        # steps of 8 bits from 0 fit into 16 as they are
        codes = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int8).astype(np.int64) - zero[0]
        store(model, index, schema.TensorType.INT16, codes.astype(np.int16).reshape(tensor.shape))
    else:
        tensor.type, scale = schema.TensorType.INT16, fine_scale(scale, zero)
    # a new one: tensors may share the object
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = scale, np.zeros(len(scale), np.int64)
    tensor.quantization.quantizedDimension = grid.quantizedDimension


def _widen_bias(
    model: Any, op: Any, kind: str, biases: Mapping[int, np.ndarray], stored: dict[int, np.ndarray]
) -> None:
    from ai_edge_litert import schema_py_generated as schema

    place = 3 if kind == "TRANSPOSE_CONV" else 2
    index = int(op.inputs[place]) if len(op.inputs) > place else -1
    if index < 0:
        return
    tensors = model.subgraphs[0].tensors
    source = tensors[int(op.inputs[2 if kind == "TRANSPOSE_CONV" else 0])]
    weight = tensors[int(op.inputs[1])]
    steps = np.asarray(weight.quantization.scale, np.float64) * float(np.float32(source.quantization.scale[0]))
    if index in stored:
        if not np.array_equal(stored[index], steps):
            raise TargetError("two layers share a bias on different steps, which litert-torch is not known to do")
        return
    stored[index], bias = steps, tensors[index]
    values = biases.get(index)
    if values is None:
        codes = np.frombuffer(bytes(model.buffers[bias.buffer].data), np.int32)
        values = codes * np.asarray(bias.quantization.scale, np.float64)
    # beyond any real bias: it only keeps the cast defined, and what is proven afterwards finds it
    codes = np.clip(np.rint(values.astype(np.float64) / steps), -_INT64 / 2, _INT64 / 2).astype(np.int64)
    store(model, index, schema.TensorType.INT64, codes)
    bias.quantization = schema.QuantizationParametersT()
    bias.quantization.scale = steps.astype(np.float32)
    bias.quantization.zeroPoint = np.zeros(len(steps), np.int64)


def _kind(model: Any, op: Any) -> str:
    return operator_name(model.operatorCodes[op.opcodeIndex])


def _constant(model: Any, index: int) -> bool:
    data = model.buffers[model.subgraphs[0].tensors[index].buffer].data
    return data is not None and len(data) > 0


def _is_int8(tensor: Any) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    return bool(tensor.type == schema.TensorType.INT8)
