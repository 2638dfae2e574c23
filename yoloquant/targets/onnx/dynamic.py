"""Dynamic-range quantization: int8 weights, and activations that are quantized with each image's own range.

A convolution behind an int8 weight becomes DynamicQuantizeLinear (uint8, per tensor), ConvInteger, and one product with
both scales. ONNX Runtime's ConvInteger takes one zero_point and no scale per channel, but its sums are exact integers,
so scales per channel can be applied behind it. The weights and their scales are the plan's.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_SHARED = "/dynamic"  # what the quantized form of a tensor is called; every reader uses the same


def to_dynamic(model: onnx.ModelProto) -> int:
    """Rewrite every convolution with a quantized weight in place.

    Args:
        model: A model whose weights are int8 behind DequantizeLinear, and whose activations are float.

    Returns:
        Number of rewritten convolutions.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    nodes: list[onnx.NodeProto] = []
    gone: set[str] = set()
    quantized: set[str] = set()
    count = 0
    for node in graph.node:
        weight = made.get(node.input[1]) if node.op_type == "Conv" else None
        if weight is None or weight.op_type != "DequantizeLinear":
            nodes.append(node)
            continue
        if node.input[0] not in quantized:
            quantized.add(node.input[0])
            nodes.append(_quantize(node.input[0]))
        _spread(constants[weight.input[1]], constants[weight.input[0]])
        nodes.extend(_integer(node, weight))
        gone.add(weight.output[0])
        count += 1
    kept = [n for n in nodes if not (n.op_type == "DequantizeLinear" and n.output[0] in gone)]
    del graph.node[:]
    graph.node.extend(kept)
    _make_biases_columns(model)
    onnx.checker.check_model(model, full_check=True)
    return count


def _quantize(name: str) -> onnx.NodeProto:
    outputs = [f"{name}{_SHARED}/{part}" for part in ("quantized", "scale", "zero_point")]
    return helper.make_node("DynamicQuantizeLinear", [name], outputs, f"{name}{_SHARED}/quantize")


def _spread(scale: onnx.TensorProto, weight: onnx.TensorProto) -> None:
    """Give a scale per output channel the shape that multiplies (1, channels, height, width)."""
    value = numpy_helper.to_array(scale)
    scale.CopyFrom(numpy_helper.from_array(value.reshape(-1, *[1] * (len(weight.dims) - 2)), scale.name))


def _integer(conv: onnx.NodeProto, weight: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes that compute what a convolution with a dequantized weight does."""
    source, result, name = f"{conv.input[0]}{_SHARED}", conv.output[0], conv.name
    parts = {part: f"{name}/{part}" for part in ("sum", "float", "scale", "product")}
    last = result if len(conv.input) < 3 else parts["product"]
    attributes = {a.name: helper.get_attribute_value(a) for a in conv.attribute}
    inputs = [f"{source}/quantized", weight.input[0], f"{source}/zero_point"]  # the weight's own zero_point is 0
    nodes = [
        helper.make_node("ConvInteger", inputs, [parts["sum"]], name, **attributes),
        helper.make_node("Cast", [parts["sum"]], [parts["float"]], f"{name}/cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{source}/scale", weight.input[1]], [parts["scale"]], f"{name}/both_scales"),
        helper.make_node("Mul", [parts["float"], parts["scale"]], [last], f"{name}/rescale"),
    ]
    if len(conv.input) > 2:
        nodes.append(helper.make_node("Add", [last, conv.input[2]], [result], f"{name}/add_bias"))
    return nodes


def _make_biases_columns(model: onnx.ModelProto) -> None:
    """A bias that is added behind an integer convolution needs the shape (channels, 1, 1)."""
    biases = {n.input[1] for n in model.graph.node if n.op_type == "Add" and n.name.endswith("/add_bias")}
    for tensor in model.graph.initializer:
        if tensor.name in biases:
            value = np.asarray(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(value.reshape(-1, 1, 1), tensor.name))
