"""Edits that the converter has no option for, made on the flatbuffer's object form.

Each keeps the integers that the network computes exactly as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import TargetError
from .additions import add_tensor, cast
from .flatbuffer import operator_name, parse, serialize
from .operator_versions import lower
from .transposed import TransposedWeight, make_integer

INPUT_TYPES = ("float32", "int8", "uint8")


def finish(content: bytes, *, input_type: str, transposed: Sequence[TransposedWeight] = ()) -> bytes:
    """Give a converted model its final ends, integer operators throughout, and versions that every runtime accepts.

    Args:
        content: The flatbuffer as converted, with an int8 input.
        transposed: Its transposed convolutions, which the converter leaves in float.
        input_type: ``float32`` or ``uint8`` put a quantize operator in front; ``int8`` leaves the input as it is. With
            ``float32`` the outputs are float too.

    Returns:
        The edited flatbuffer.

    Raises:
        TargetError: The type is unknown or the converter left no int8 input.
    """
    if input_type not in INPUT_TYPES:
        raise TargetError(f"input_type='{input_type}' is not supported; allowed are {', '.join(INPUT_TYPES)}")
    model = parse(content)
    make_integer(model, transposed)
    _resize_without_half_pixels(model)
    if input_type == "float32":
        _append_dequantize(model)
    if input_type != "int8":
        _prepend_quantize(model, input_type)
    # Last: the edits bring operators with versions of their own.
    return lower(serialize(model))


def _resize_without_half_pixels(model: Any) -> None:
    """Clear half_pixel_centers of nearest resizes by whole factors.

    ``floor((i + 0.5) / n)`` equals ``floor(i / n)`` for every whole factor n, so nothing changes but the compilers that
    accept it.
    """
    graph = model.subgraphs[0]
    for op in graph.operators:
        if operator_name(model.operatorCodes[op.opcodeIndex]) != "RESIZE_NEAREST_NEIGHBOR":
            continue
        source, result = (graph.tensors[i].shape for i in (op.inputs[0], op.outputs[0]))
        if all(int(b) % int(a) == 0 for a, b in zip(source, result, strict=True)):
            op.builtinOptions.halfPixelCenters = False


def _prepend_quantize(model: Any, input_type: str) -> None:
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    inner = int(graph.inputs[0])
    target = graph.tensors[inner]
    if len(graph.inputs) != 1 or target.type != schema.TensorType.INT8:
        raise TargetError("the converter did not return exactly one int8 input; this litert-torch is not supported")
    index = add_tensor(model, inner, target.name)
    target.name = target.name + b"_quantized"
    if input_type == "uint8":
        outer = graph.tensors[index]
        outer.type = schema.TensorType.UINT8
        outer.quantization.scale = target.quantization.scale
        # The same grid, counted from 0.
        outer.quantization.zeroPoint = np.asarray(target.quantization.zeroPoint) + 128
    graph.operators.insert(0, cast(model, "QUANTIZE", index, inner, version=1))
    graph.inputs = np.array([index], np.int32)
    # Signatures name tensors by index, and who goes by them would still find the inner one.
    for signature in model.signatureDefs or []:
        for entry in signature.inputs:
            entry.tensorIndex = index if entry.tensorIndex == inner else entry.tensorIndex


def _append_dequantize(model: Any) -> None:
    """Make outputs float that the converter left as integers, as it does where nothing computes behind the body.

    A drop-in's reader would look for float values, as it finds them in the other outputs.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    outputs = [int(i) for i in graph.outputs]
    for place, inner in enumerate(outputs):
        source = graph.tensors[inner]
        if source.type != schema.TensorType.INT8:
            continue
        index = add_tensor(model, inner, source.name)
        source.name = source.name + b"_quantized"
        graph.operators.append(cast(model, "DEQUANTIZE", inner, index, version=2))
        outputs[place] = index
        for signature in model.signatureDefs or []:
            for entry in signature.outputs:
                entry.tensorIndex = index if entry.tensorIndex == inner else entry.tensorIndex
    graph.outputs = np.array(outputs, np.int32)
