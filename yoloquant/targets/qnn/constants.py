"""Factors of products become integers too: beside a float constant the NPU would compute in float16.

An attention multiplies its queries by a constant. As the integer 1 with the constant itself as scale it stays exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

_ARITHMETIC = frozenset({"Mul", "Div", "Add", "Sub"})


def quantize_scalars(model: ir.Model, bits: int = 8) -> int:
    """Put every scalar operand of an arithmetic operation on a grid that holds exactly it, in place.

    Args:
        model: A Q/DQ model.
        bits: Those of its activations.

    Returns:
        How many there were.
    """
    count = 0
    for node in list(model.graph):
        for position, value in enumerate(node.inputs):
            if node.op_type not in _ARITHMETIC or value is None or value.const_value is None:
                continue
            constant = np.asarray(value.const_value.numpy())
            if constant.size == 1 and constant.dtype == np.float32 and constant.flat[0]:
                _replace(model, node, position, constant, bits)
                count += 1
    return count


def _replace(model: ir.Model, node: ir.Node, position: int, constant: np.ndarray, bits: int) -> None:
    import onnx_ir as ir

    negative = bool(constant.flat[0] < 0)  # a scale is positive: then it is 0 beside a zero_point of 1
    name = f"{node.name}:constant"
    parts = {
        "int": np.full(constant.shape, 0 if negative else 1, f"uint{bits}"),
        "scale": np.abs(constant).reshape(()),
        "zero_point": np.array(1 if negative else 0, f"uint{bits}"),
    }
    values = []
    for kind, content in parts.items():
        value = ir.val(f"{name}/{kind}", const_value=ir.tensor(content, name=f"{name}/{kind}"))
        model.graph.register_initializer(value)
        values.append(value)
    dequantize = ir.node("DequantizeLinear", values, name=f"{name}/dequantize")
    dequantize.outputs[0].name = f"{name}/dequantized"
    model.graph.insert_before(node, dequantize)
    former = node.inputs[position]
    node.replace_input_with(position, dequantize.outputs[0])
    if former is not None and former.name and not former.uses():
        model.graph.initializers.pop(former.name, None)
