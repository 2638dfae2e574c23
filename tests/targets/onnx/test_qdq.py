"""Markers become pairs: on a graph made by hand, without torch, so that this takes a moment."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from yoloquant.errors import TargetError
from yoloquant.quantization.plan import Point, PointKind, Role
from yoloquant.quantization.qparams import QuantSpec, fake_quantize, from_range
from yoloquant.targets.onnx.dynamic import to_dynamic
from yoloquant.targets.onnx.emission import MARKER, MARKER_DOMAIN, Emission, Weights
from yoloquant.targets.onnx.emit import checked, finish
from yoloquant.targets.onnx.opset import CANONICAL, EXPORTED, to_canonical
from yoloquant.targets.onnx.qdq import insert_pairs
from yoloquant.targets.onnx.read_scales import read_scales

WEIGHT = QuantSpec(symmetric=True, narrow_range=True, axis=0)
RNG = np.random.default_rng(0)
CONSTANTS = {
    "a.weight": RNG.normal(size=(8, 3, 3, 3)).astype(np.float32),
    "a.bias": RNG.normal(size=8).astype(np.float32),
    "b.weight": RNG.normal(size=(8, 1, 3, 3)).astype(np.float32),
    "axes": np.array([2, 3], np.int64),
}


def points() -> dict[str, Point]:
    """The network's input, both weights (the first is clipped), and what stands between them."""

    def weight(name: str, share: float) -> Point:
        amax = np.abs(CONSTANTS[f"{name}.weight"]).reshape(8, -1).max(1) * share
        return Point(f"{name}:weight", PointKind.WEIGHT, Role.WEIGHT, WEIGHT, params=from_range(-amax, amax, WEIGHT))

    def activation(name: str, low: float, high: float) -> Point:
        params = from_range(low, high, QuantSpec())
        return Point(name, PointKind.ACTIVATION, Role.ACTIVATION, QuantSpec(), params=params)

    every = (weight("a", 0.7), weight("b", 1.0), activation("images", 0, 1), activation("a:conv:0", -3, 5))
    return {point.name: point for point in every}


def graph(places: dict[str, str], computed: bool = False) -> ir.Model:
    """Two layers, the second of which runs twice, as torch's exporter writes them."""
    nodes: list[Any] = []

    def marked(source: str, place: str) -> str:
        if place not in places:
            return source
        nodes.append(helper.make_node(MARKER, [source], [f"{source}/q"], domain=MARKER_DOMAIN, place=place))
        return f"{source}/q"

    weight = "a.weight"
    if computed:
        nodes.append(helper.make_node("Neg", [weight], ["negative"]))
        weight = "negative"
    inputs = [marked("images", "images"), marked(weight, "a:weight"), "a.bias"]
    nodes.append(helper.make_node("Conv", inputs, ["x"], "node_conv", pads=[1, 1, 1, 1]))
    inputs = [marked("x", "a:conv:0"), marked("b.weight", "b:weight")]
    nodes += [helper.make_node("Conv", inputs, [o], "node_conv", pads=[1, 1, 1, 1], group=8) for o in ("y", "z")]
    nodes.append(helper.make_node("Add", ["y", "z"], ["sum"], "node_add"))
    nodes.append(helper.make_node("ReduceMax", ["sum", "axes"], ["most"], "node_max", keepdims=1))
    built = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("most", TensorProto.FLOAT, [1, 8, 1, 1])],
        [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items()],
    )
    opsets = [helper.make_opsetid("", EXPORTED), helper.make_opsetid(MARKER_DOMAIN, 1)]
    return to_canonical(ir.from_proto(helper.make_model(built, opset_imports=opsets, ir_version=8)))


def quantized(emission: Emission, chosen: dict[str, Point]) -> ir.Model:
    model = graph({name: name for name in chosen})
    insert_pairs(model, chosen, {name: name for name in chosen}, emission)
    finish(model, {"key": "value"})
    return model


def run(model: ir.Model) -> np.ndarray:
    written = checked(model)
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(written.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(1).random((1, 3, 8, 8), np.float32)
    return np.asarray(session.run(None, {"images": image})[0])


def test_both_forms_of_weights_compute_the_same() -> None:
    found = [run(quantized(Emission(weights=form), points())) for form in Weights]
    np.testing.assert_array_equal(*found)


def test_layers_are_named_by_their_weight_and_share_it() -> None:
    model = quantized(Emission(weights=Weights.INT8), points())
    assert model.metadata_props == {"key": "value"} and "axes" not in model.graph.initializers
    assert model.opset_imports[""] == CANONICAL
    assert [n.name for n in model.graph if n.op_type == "Conv"] == ["a", "b", "b_1"]
    assert sum(n.op_type == "DequantizeLinear" for n in model.graph) == 4
    stored = model.graph.initializers["b:weight/int8"].const_value
    assert stored is not None and stored.numpy().dtype == np.int8 and stored.numpy().min() >= -127


def test_scales_read_back() -> None:
    for unsigned in (False, True):
        written = ir.to_proto(quantized(Emission(unsigned=unsigned, weights=Weights.INT8), points()))
        for name, (scale, zero) in read_scales(written, points()).items():
            params = points()[name].params
            assert (
                params is not None and np.array_equal(scale, params.scale) and np.array_equal(zero, params.zero_point)
            )


def test_biases_get_the_accumulators_scale() -> None:
    model = quantized(Emission(weights=Weights.INT8, int32_bias=True), points())
    bias, weight, image = points()["a:weight"].params, points()["a:weight"].params, points()["images"].params
    scale = model.graph.initializers["a:bias/scale"].const_value
    stored = model.graph.initializers["a:bias/int32"].const_value
    assert bias and weight and image and scale is not None and stored is not None
    np.testing.assert_array_equal(scale.numpy(), image.scale * weight.scale)
    error = np.abs(stored.numpy() * scale.numpy() - CONSTANTS["a.bias"])
    assert stored.numpy().dtype == np.int32 and (error <= scale.numpy()).all()


def test_a_weight_that_is_computed_is_refused() -> None:
    model = graph({name: name for name in points()}, computed=True)
    with pytest.raises(TargetError, match="negative is computed"):
        insert_pairs(model, points(), {name: name for name in points()}, Emission(weights=Weights.INT8))


def test_dynamic_quantization_is_near_its_float_form_and_leaves_nothing_behind() -> None:
    weights = {name: point for name, point in points().items() if point.kind is PointKind.WEIGHT}
    plain, model = (quantized(Emission(weights=Weights.INT8), weights) for _ in range(2))
    assert to_dynamic(model) == 3
    kinds = [n.op_type for n in model.graph]
    assert kinds.count("ConvInteger") == 3 and kinds.count("DynamicQuantizeLinear") == 2
    assert "DequantizeLinear" not in kinds and not any("zero_point" in name for name in model.graph.initializers)
    want = run(plain)
    assert np.abs(run(model) - want).max() < 0.05 * np.abs(want).max()


def test_clipped_weights_are_the_reference() -> None:
    """What QuantizeLinear makes of a clipped float weight is what the plan's own arithmetic says."""
    model = quantized(Emission(weights=Weights.FLOAT), points())
    stored, point = model.graph.initializers["a.weight"].const_value, points()["a:weight"]
    assert stored is not None and point.params is not None
    want = fake_quantize(CONSTANTS["a.weight"], point.params, WEIGHT)
    np.testing.assert_array_equal(fake_quantize(stored.numpy(), point.params, WEIGHT), want)
