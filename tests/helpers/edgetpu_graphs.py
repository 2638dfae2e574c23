"""Tiny ``.tflite`` files written by hand, one operator at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from yoloquant.targets.litert.flatbuffer import serialize


@dataclass(frozen=True)
class T:
    """A tensor; with values it is a constant.

    Attributes:
        shape: Its dimensions.
        dtype: As the schema names it.
        values: Its values.
        scale: One scale, or none if it is 0.
        zero_point: Its zero point.
        dynamic: Whether its first dimension is only known at run time.
    """

    shape: tuple[int, ...]
    dtype: str = "INT8"
    values: Any = None
    scale: float = 0.1
    zero_point: int = 0
    dynamic: bool = False


@dataclass(frozen=True)
class Op:
    """An operator; tensors are given by name.

    Attributes:
        kind: Its name in the schema.
        inputs: Names of what it reads.
        outputs: Names of what it writes.
        version: Its version.
        options: Attributes by the schema's names in camel case.
    """

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    version: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)


_OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "PACK": "PackOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SPLIT": "SplitOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUM": "ReducerOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
}
_NUMPY = {"INT8": np.int8, "UINT8": np.uint8, "INT16": np.int16, "INT32": np.int32, "FLOAT32": np.float32}


def build(tensors: Mapping[str, T], ops: Sequence[Op]) -> bytes:
    """A file whose inputs are what no operator writes, and whose outputs are what none reads."""
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, [schema.BufferT()], [], [graph]
    names = list(tensors)
    graph.tensors = [_tensor(schema, model, name, tensors[name]) for name in names]
    graph.operators = [_operator(schema, model, names, op) for op in ops]
    written = {o for op in ops for o in op.outputs}
    read = {i for op in ops for i in op.inputs}
    graph.inputs = [i for i, n in enumerate(names) if n not in written and tensors[n].values is None]
    graph.outputs = [i for i, n in enumerate(names) if n in written and n not in read]
    return serialize(model)


def single(op: Op, tensors: Mapping[str, T]) -> bytes:
    """A file of one operator."""
    return build(tensors, [op])


def _tensor(schema: Any, model: Any, name: str, spec: T) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape = name.encode(), list(spec.shape)
    tensor.type = getattr(schema.TensorType, spec.dtype)
    tensor.quantization = schema.QuantizationParametersT()
    if spec.scale:
        tensor.quantization.scale, tensor.quantization.zeroPoint = [spec.scale], [spec.zero_point]
    if spec.dynamic:
        tensor.shapeSignature = [-1, *spec.shape[1:]]
    if spec.values is not None:
        buffer = schema.BufferT()
        values = np.broadcast_to(np.asarray(spec.values, _NUMPY[spec.dtype]), spec.shape)
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    return tensor


def _operator(schema: Any, model: Any, names: Sequence[str], op: Op) -> Any:
    code, raw = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = getattr(schema.BuiltinOperator, op.kind)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), op.version
    model.operatorCodes.append(code)
    raw.opcodeIndex = len(model.operatorCodes) - 1
    raw.inputs, raw.outputs = [names.index(i) for i in op.inputs], [names.index(o) for o in op.outputs]
    if op.kind in _OPTIONS:
        raw.builtinOptionsType = getattr(schema.BuiltinOptions, _OPTIONS[op.kind])
        raw.builtinOptions = getattr(schema, f"{_OPTIONS[op.kind]}T")()
        for name, value in op.options.items():
            assert hasattr(raw.builtinOptions, name)
            setattr(raw.builtinOptions, name, value)
    return raw
