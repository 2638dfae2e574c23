"""Dynamic-range quantization: int8 weights, and activations that are quantized with each image's own range.

A convolution behind an int8 weight becomes DynamicQuantizeLinear (uint8, per tensor), ConvInteger, and one product with
both scales. ONNX Runtime's ConvInteger takes one zero_point and no scale per channel, but its sums are exact integers,
so scales per channel can be applied behind it. The weights and their scales are the plan's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

_SHARED = "/dynamic"  # what the quantized form of a tensor is called; every reader uses the same


def to_dynamic(model: ir.Model) -> int:
    """Rewrite every convolution with a quantized weight in place.

    Args:
        model: A model whose weights are int8 behind DequantizeLinear, and whose activations are float.

    Returns:
        Number of rewritten convolutions.
    """
    quantized: dict[ir.Value, ir.Node] = {}
    count = 0
    for conv in list(model.graph):
        weight = conv.inputs[1].producer() if conv.op_type == "Conv" and conv.inputs[1] is not None else None
        if weight is None or weight.op_type != "DequantizeLinear":
            continue
        source = conv.inputs[0]
        assert source is not None
        # quantized once for all readers: each DynamicQuantizeLinear is a pass over the whole tensor
        if source not in quantized:
            quantized[source] = _quantize(source)
            model.graph.insert_before(conv, quantized[source])
        nodes = _integer(conv, weight, quantized[source])
        ir.convenience.replace_nodes_and_values(model.graph, conv, [conv], nodes, conv.outputs, nodes[-1].outputs)
        count += 1
    RemoveUnusedNodesPass()(model)  # the DequantizeLinear of each weight
    return count


def _quantize(source: ir.Value) -> ir.Node:
    name = f"{source.name}{_SHARED}"
    node = ir.node("DynamicQuantizeLinear", [source], name=f"{name}/quantize", num_outputs=3)
    for output, part in zip(node.outputs, ("quantized", "scale", "zero_point"), strict=True):
        output.name = f"{name}/{part}"
    return node


def _integer(conv: ir.Node, weight: ir.Node, source: ir.Node) -> list[ir.Node]:
    """The nodes that compute what a convolution with a dequantized weight does."""
    integers, scale = weight.inputs[:2]
    assert integers is not None and integers.shape is not None and scale is not None
    # a scale per output channel in the shape that multiplies (1, channels, height, width)
    _reshape(scale, (-1, *[1] * (len(integers.shape) - 2)))
    quantized, factor, zero = source.outputs
    # the weight's own zero_point is 0
    # it keeps the convolution's name, by which the lint rules and read_scales know it
    total = _node(conv, "ConvInteger", [quantized, integers, zero], "", "sum", dict(conv.attributes))
    floats = _node(conv, "Cast", [total.outputs[0]], "/cast", "float", {"to": int(ir.DataType.FLOAT)})
    # the scales first: this product is as long as there are channels, the other one as large as the feature map
    both = _node(conv, "Mul", [factor, scale], "/both_scales", "scale")
    rescale = _node(conv, "Mul", [floats.outputs[0], both.outputs[0]], "/rescale", "product")
    nodes = [total, floats, both, rescale]
    if len(conv.inputs) > 2 and conv.inputs[2] is not None:
        _reshape(conv.inputs[2], (-1, 1, 1))
        nodes.append(_node(conv, "Add", [rescale.outputs[0], conv.inputs[2]], "/add_bias", "result"))
    return nodes


def _node(
    conv: ir.Node, kind: str, inputs: list[ir.Value], suffix: str, part: str, attributes: dict[str, Any] | None = None
) -> ir.Node:
    node = ir.node(kind, inputs, attributes, name=f"{conv.name}{suffix}")
    node.outputs[0].name = f"{conv.name}/{part}"
    return node


def _reshape(constant: ir.Value, shape: tuple[int, ...]) -> None:
    assert constant.const_value is not None
    value = np.asarray(constant.const_value.numpy()).reshape(shape)
    constant.const_value = ir.tensor(value, name=constant.name)
    constant.shape = ir.Shape(value.shape)
