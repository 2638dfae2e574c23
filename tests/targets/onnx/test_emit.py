"""Emission of Q/DQ ONNX: canonical form, integer weights and biases, ranges that read back."""

from __future__ import annotations

from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from tiny_models import tiny_export_artifact

from yoloquant.errors import TargetError
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.scheme import PORTABLE
from yoloquant.targets.onnx import emit as emitting
from yoloquant.targets.onnx.emission import Emission, Weights
from yoloquant.targets.onnx.emit import emit
from yoloquant.targets.onnx.opset import CANONICAL
from yoloquant.targets.onnx.read_scales import read_scales


@lru_cache(maxsize=1)
def artifact() -> Artifact:
    return tiny_export_artifact("yolov8", schemes=(PORTABLE,))


@lru_cache(maxsize=2)
def emitted(weights: Weights) -> onnx.ModelProto:
    emission = Emission(unsigned=weights is Weights.INT8, weights=weights, int32_bias=weights is Weights.INT8)
    return emit(artifact().graph, artifact().plans["portable"], emission, metadata={"key": "value"})


@pytest.mark.parametrize("weights", Weights)
def test_canonical_form(weights: Weights) -> None:
    model = emitted(weights)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", CANONICAL)]
    names = [n.name for n in model.graph.node]
    assert all(names) and len(set(names)) == len(names)
    assert [i.name for i in model.graph.input] == ["images"]
    assert [o.name for o in model.graph.output] == ["output0"]
    assert {p.key: p.value for p in model.metadata_props} == {"key": "value"}
    used = {i for n in model.graph.node for i in n.input}
    assert {i.name for i in model.graph.initializer} <= used
    shapes = [d.HasField("dim_value") for v in model.graph.output for d in v.type.tensor_type.shape.dim]
    assert shapes and all(shapes), "shapes must be static"


def test_the_float_model_is_exported_once_for_all_who_rewrite_it(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, made, export = artifact().graph, [], emitting._export
    monkeypatch.setattr(emitting, "_FLOATS", WeakKeyDictionary())
    monkeypatch.setattr(emitting, "_export", lambda *args: made.append(1) or export(*args))  # type: ignore[func-returns-value]
    first = emit(graph, None, Emission())
    changed = emit(graph, None, Emission(unsigned=True), rewrites=[_renamed])
    again = emit(graph, None, Emission())
    assert len(made) == 1 and changed.graph.output[0].name == "other"
    assert again.SerializeToString() == first.SerializeToString(), "nobody changes what the next one reads"
    weight = next(graph.module.parameters())
    weight.data *= 2
    try:
        other = emit(graph, None, Emission())
    finally:
        weight.data /= 2
    assert len(made) == 2 and other.SerializeToString() != first.SerializeToString(), "other weights, another model"


def _renamed(model: ir.Model) -> None:
    model.graph.outputs[0].name = "other"


@pytest.mark.parametrize("weights", Weights)
def test_ranges_read_back_bit_by_bit(weights: Weights) -> None:
    plan = artifact().plans["portable"]
    found = read_scales(emitted(weights), [p.name for p in plan.points])
    for point in plan.points:
        assert point.params is not None
        scale, zero_point = found[point.name]
        assert scale.dtype == np.float32 and np.array_equal(scale, point.params.scale)
        assert np.array_equal(zero_point, point.params.zero_point)


def test_a_missing_point_is_reported() -> None:
    with pytest.raises(TargetError, match="no quantize or dequantize operation for point nowhere"):
        read_scales(emitted(Weights.FLOAT), ["nowhere"])


def test_integer_weights_are_the_quantized_float_ones_in_the_narrow_range() -> None:
    constants = {i.name: numpy_helper.to_array(i) for i in emitted(Weights.INT8).graph.initializer}
    for point in artifact().plans["portable"].weights:
        stored = constants[f"{point.name}/int8"]
        assert stored.dtype == np.int8 and stored.min() >= -127
        assert point.params is not None
        path = point.name.removesuffix(":weight")
        weight = artifact().graph.module.get_parameter(f"{path}.weight").detach().numpy()
        shape = [1] * weight.ndim
        if point.spec.axis is not None:
            shape[point.spec.axis] = -1
        scale = point.params.scale.reshape(shape)
        inside = np.abs(weight) <= point.spec.qmax * scale
        assert (
            np.abs(stored * scale - weight)[inside] <= (0.5001 * np.broadcast_to(scale, weight.shape))[inside]
        ).all()


def test_biases_have_the_scale_of_the_accumulator() -> None:
    model = emitted(Weights.INT8)
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    made = {o: n for n in model.graph.node for o in n.output}
    convs = [n for n in model.graph.node if n.op_type == "Conv" and len(n.input) == 3]
    direct = [n for n in convs if made[n.input[0]].op_type == "DequantizeLinear"]
    assert len(direct) > len(convs) // 2
    assert all(constants[n.input[2]].dtype == np.float32 for n in convs if n not in direct)
    for conv in direct:
        source, weight, bias = (made[name] for name in conv.input)
        assert constants[bias.input[0]].dtype == np.int32
        product = constants[source.input[1]] * constants[weight.input[1]]
        np.testing.assert_allclose(constants[bias.input[1]], product, rtol=1e-6)
