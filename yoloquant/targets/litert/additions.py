"""Tensors and operators that edits add to a flatbuffer's object form."""

from __future__ import annotations

from typing import Any

import numpy as np


def add_tensor(model: Any, like: int, name: bytes) -> int:
    """Add a float32 tensor without values.

    Args:
        model: The object form.
        like: Index of a tensor of the same shape.
        name: Its name.

    Returns:
        Its index.
    """
    from ai_edge_litert import schema_py_generated as schema

    tensors = model.subgraphs[0].tensors
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.hasRank = name, tensors[like].shape, tensors[like].hasRank
    tensor.type, tensor.quantization = schema.TensorType.FLOAT32, schema.QuantizationParametersT()
    model.buffers.append(schema.BufferT())
    tensor.buffer = len(model.buffers) - 1
    tensors.append(tensor)
    return len(tensors) - 1


def cast(model: Any, kind: str, source: int, result: int, version: int) -> Any:
    """A quantize or dequantize operator from one tensor to another, of at least this version; in no graph yet."""
    from ai_edge_litert import schema_py_generated as schema

    options, kinds = {
        "QUANTIZE": (schema.QuantizeOptionsT, schema.BuiltinOptions.QuantizeOptions),
        "DEQUANTIZE": (schema.DequantizeOptionsT, schema.BuiltinOptions.DequantizeOptions),
    }[kind]
    number = getattr(schema.BuiltinOperator, kind)
    found = [i for i, code in enumerate(model.operatorCodes) if int(code.builtinCode) == number]
    if not found:
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, number, version
        model.operatorCodes.append(code)
        found = [len(model.operatorCodes) - 1]
    # All operators of the kind share the code, so its version is only ever raised.
    model.operatorCodes[found[0]].version = max(int(model.operatorCodes[found[0]].version), version)
    op = schema.OperatorT()
    op.opcodeIndex = found[0]
    op.inputs, op.outputs = np.array([source], np.int32), np.array([result], np.int32)
    op.builtinOptionsType, op.builtinOptions = kinds, options()
    return op


def store(model: Any, index: int, kind: int, values: np.ndarray) -> None:
    """Give a tensor a type and a buffer of its own; another tensor may share the old one.

    Args:
        model: The object form.
        index: Index of the tensor.
        kind: Element type by the schema's number.
        values: What it holds from then on.
    """
    from ai_edge_litert import schema_py_generated as schema

    tensor = model.subgraphs[0].tensors[index]
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    old, tensor.buffer, tensor.type = tensor.buffer, len(model.buffers), kind
    model.buffers.append(buffer)
    if all(t.buffer != old for g in model.subgraphs for t in g.tensors):
        model.buffers[old].data = None
