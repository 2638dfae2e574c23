"""Markers of the plan's points become QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ...errors import TargetError
from ...quantization.qparams import along_axis, quantize
from .emission import MARKER, MARKER_DOMAIN, Emission, Weights

if TYPE_CHECKING:
    from ...quantization.plan import Point

_LARGEST = float(2**31 - 128)  # of an int32 bias: beyond it, float32 rounds to 2**31, which int32 cannot hold


def insert_pairs(model: ir.Model, points: Mapping[str, Point], places: Mapping[str, str], emission: Emission) -> None:
    """Replace every marker in place.

    Args:
        model: What torch exported, with a marker wherever a point is placed.
        points: The plan's points by name.
        places: Point name of every place that a marker names.
        emission: The target's choices.

    Raises:
        TargetError: A weight is computed in the graph.
    """
    _Inserter(model.graph, points, places, emission).run()


class _Inserter:
    def __init__(
        self, graph: ir.Graph, points: Mapping[str, Point], places: Mapping[str, str], emission: Emission
    ) -> None:
        self.graph, self.points, self.places, self.emission = graph, points, places, emission
        self.weight_of: dict[ir.Value, str] = {}  # dequantized tensor -> weight point
        self.activation_of: dict[ir.Value, str] = {}  # dequantized tensor -> activation point

    def run(self) -> None:
        for node in list(self.graph):
            if node.op_type == MARKER and node.domain == MARKER_DOMAIN:
                self._realise(node)
        for node in self.graph:
            weight = next((self.weight_of[i] for i in node.inputs if i in self.weight_of), None)
            if weight is not None:
                # TensorRT's log and OpenVINO's profiler then speak of layers as people know them
                node.name = weight.removesuffix(":weight")
        if self.emission.int32_bias:
            for node in list(self.graph):
                self._quantize_bias(node)

    def _realise(self, marker: ir.Node) -> None:
        place = marker.attributes["place"].as_string()
        point, source = self.points[self.places[place]], marker.inputs[0]
        assert source is not None
        weight = point.role.value == "weight"
        scale, zero = self._constants(point, unsigned=self.emission.unsigned and not weight)
        axis = {} if point.spec.axis is None else {"axis": point.spec.axis}
        nodes: list[ir.Node] = []
        if weight and self.emission.weights is Weights.INT8:
            assert point.params is not None
            # rounded here, in float32 and half to even: a runtime would do it at load, each in its own way
            integers = quantize(_value(source), point.params, point.spec).astype(np.int8)
            middle = self._constant(f"{place}/int8", integers)
        else:
            if weight:
                _clip(source, point)
            nodes.append(ir.node("QuantizeLinear", [source, scale, zero], axis, name=f"{place}/quantize"))
            middle = nodes[0].outputs[0]
            middle.name = f"{place}/quantized"
        nodes.append(ir.node("DequantizeLinear", [middle, scale, zero], axis, name=f"{place}/dequantize"))
        result = nodes[-1].outputs[0]
        (self.weight_of if weight else self.activation_of)[result] = point.name
        ir.convenience.replace_nodes_and_values(self.graph, marker, [marker], nodes, marker.outputs, [result])

    def _constants(self, point: Point, *, unsigned: bool) -> tuple[ir.Value, ir.Value]:
        assert point.params is not None
        bits = 8 if point.spec.bits <= 8 else 16
        # the same grid: uint8 activations run in ONNX Runtime's fast kernels, signed ones are slower than float
        zero = point.params.zero_point + (1 << (bits - 1)) if unsigned else point.params.zero_point
        scale = self._constant(f"{point.name}/scale", point.params.scale)
        return scale, self._constant(f"{point.name}/zero_point", zero.astype(f"{'u' if unsigned else ''}int{bits}"))

    def _constant(self, name: str, value: np.ndarray) -> ir.Value:
        """An initializer; one that is there already serves all that ask for it."""
        if name not in self.graph.initializers:
            self.graph.register_initializer(ir.val(name, const_value=ir.tensor(np.asarray(value), name=name)))
        return self.graph.initializers[name]

    def _quantize_bias(self, layer: ir.Node) -> None:
        """Store a bias as int32 on the grid of the accumulator, whose scale is that of the input times the weight's."""
        if len(layer.inputs) < 3 or not (layer.op_type == "Conv" or _is_linear_with_float_result(layer)):
            return
        source, weight, bias = layer.inputs[:3]
        if source not in self.activation_of or weight not in self.weight_of or bias is None:
            return
        inputs, weights = self.points[self.activation_of[source]].params, self.points[self.weight_of[weight]].params
        assert inputs is not None and weights is not None
        value = _value(bias)
        # exactly this product in float32, or ONNX Runtime does not fuse the bias and computes the layer in float
        scale = (inputs.scale * np.broadcast_to(weights.scale, value.shape)).astype(np.float32)
        integers = np.clip(np.round(value.astype(np.float64) / scale), -_LARGEST, _LARGEST).astype(np.int32)
        constants = [
            self._constant(f"{layer.name}:bias/int32", integers),
            self._constant(f"{layer.name}:bias/scale", scale),
            self._constant(f"{layer.name}:bias/zero_point", np.zeros(value.shape, np.int32)),
        ]
        dequantize = ir.node("DequantizeLinear", constants, {"axis": 0}, name=f"{layer.name}:bias/dequantize")
        dequantize.outputs[0].name = f"{layer.name}:bias/dequantized"
        self.graph.insert_before(layer, dequantize)
        layer.replace_input_with(2, dequantize.outputs[0])


def _is_linear_with_float_result(node: ir.Node) -> bool:
    """Whether a linear layer has no pair behind it; with one, ONNX Runtime rounds a float bias itself."""
    return node.op_type == "Gemm" and not any(u.op_type == "QuantizeLinear" for u in node.outputs[0].consumers())


def _value(source: ir.Value) -> np.ndarray:
    if source.const_value is None:
        raise TargetError(f"the weight {source.name} is computed in the exported graph instead of being a constant")
    return np.asarray(source.const_value.numpy())


def _clip(source: ir.Value, point: Point) -> None:
    """Keep the narrow range with QuantizeLinear, which always uses -128 too."""
    assert point.params is not None
    weight = _value(source)
    low, high = (along_axis(bound, point.spec.axis, weight.ndim) for bound in point.params.range(point.spec))
    if ((weight < low) | (weight > high)).any():
        # a value at -127.4 steps would become -128; at most half a step is moved
        clipped = np.clip(weight, low, high).astype(np.float32)
        source.const_value = ir.tensor(clipped, name=source.name)
