from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, shape_inference

from yoloquant.errors import TargetError
from yoloquant.targets.tensorrt import rtx
from yoloquant.targets.tensorrt.graph import OnnxGraph
from yoloquant.targets.tensorrt.half import body, to_half
from yoloquant.targets.tensorrt.rtx import build_check


def _run(model: onnx.ModelProto, image: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})


def _image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((1, 8, 8, 8), dtype=np.float32)


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.value_info, *graph.output, *graph.input)
    return {v.name: v.type.tensor_type.elem_type for v in values}


def _with_decode(net: Any) -> onnx.ModelProto:
    """A head convolution, then softmax, an expectation over bins as DFL computes it, and pixels."""
    from onnx import helper

    logits = "head_out"
    net.op("Softmax", logits, name="softmax", axis=1)
    net.const("dfl.weight", np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1))
    net.op("Conv", "softmax_out", "dfl.weight", name="dfl")
    net.const("stride", np.float32(8))
    net.op("Mul", "dfl_out", "stride", name="pixels")
    model = net.model("pixels_out", (1, 1, 8, 8))
    assert isinstance(model, onnx.ModelProto) and helper
    return model


def test_body_ends_at_the_last_convolution(good_net: Any) -> None:
    names = body(OnnxGraph(_with_decode(good_net)))
    assert {"stem", "cv1", "residual", "concat", "head"} <= names
    assert not names & {"softmax", "dfl", "pixels"}


def test_body_is_half_and_decoding_is_float(good_net: Any) -> None:
    model = to_half(_with_decode(good_net))
    types = _types(model)
    for name in ("stem_out", "stem_act_mul_out", "residual_out", "head_out"):
        assert types[name] == TensorProto.FLOAT16, name
    for name in ("images", "softmax_out", "dfl_out", "pixels_out"):
        assert types[name] == TensorProto.FLOAT, name


def test_pairs_keep_their_scales_bit_by_bit(good_net: Any) -> None:
    before, after = good_net.model("head_out"), to_half(good_net.model("head_out"))
    old = {i.name: numpy_helper.to_array(i) for i in before.graph.initializer}
    new = {i.name: numpy_helper.to_array(i) for i in after.graph.initializer}
    scales = [n for n in old if n.endswith("_scale")]
    assert scales and all(np.array_equal(old[n], new[n]) and new[n].dtype == np.float32 for n in scales)
    pairs = [n for n in after.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {n.input[1] for n in pairs} == set(scales)


def test_weights_are_the_same_integers(good_net: Any) -> None:
    before, after = good_net.model("head_out"), to_half(good_net.model("head_out"))
    old = {i.name: numpy_helper.to_array(i) for i in before.graph.initializer}
    new = {i.name: numpy_helper.to_array(i) for i in after.graph.initializer}
    weights = [n for n in old if n.endswith(".weight") and f"{n}/int8" in new]
    assert len(weights) == 4 and not any(n in new for n in weights)
    for name in weights:
        scale = old[f"{name}_scale"].reshape(-1, 1, 1, 1)
        np.testing.assert_array_equal(new[f"{name}/int8"], np.clip(np.rint(old[name] / scale), -128, 127))
    assert new["head.weight/half"].dtype == np.float16, "a float convolution gets FP16 weights"


def test_names_inputs_outputs_and_opset_stay(good_net: Any) -> None:
    before, after = good_net.model("head_out"), to_half(good_net.model("head_out"))
    assert [i.name for i in after.graph.input] == ["images"] and [o.name for o in after.graph.output] == ["head_out"]
    assert after.opset_import[0].version == before.opset_import[0].version == 17
    assert _types(after)["head_out"] == TensorProto.FLOAT
    kept = {n.name for n in before.graph.node if ".weight_Q" not in n.name}
    assert kept <= {n.name for n in after.graph.node}
    names = [n.name for n in after.graph.node]
    assert len(names) == len(set(names))


def test_it_computes_the_same_but_for_rounding(good_net: Any) -> None:
    before = good_net.model("head_out")
    reference, half = _run(before, _image())[0], _run(to_half(before), _image())[0]
    assert half.dtype == np.float32
    step = np.abs(reference).max() / 127
    assert 0 < np.abs(half - reference).max() < 2 * step


def test_the_model_itself_is_not_touched(good_net: Any) -> None:
    model = good_net.model("head_out")
    before = model.SerializeToString()
    to_half(model)
    assert model.SerializeToString() == before


def test_upsampling_keeps_its_float_factors(new_net: Callable[..., Any]) -> None:
    net = new_net()
    x = net.conv("a", net.qdq("images"))
    net.const("roi", np.zeros(0, np.float32))
    net.const("factors", np.array([1, 1, 2, 2], np.float32))
    up = net.op("Resize", x, "roi", "factors", name="up", mode="nearest")
    net.conv("b", net.qdq(up, name="up_grid"))
    model = to_half(net.model("b_out", (1, 8, 16, 16)))
    assert _types(model)["up_out"] == TensorProto.FLOAT16
    assert _run(model, _image())[0].shape == (1, 8, 16, 16)


def test_constant_beyond_half_is_refused(new_net: Callable[..., Any]) -> None:
    net = new_net()
    net.const("big", np.float32(70000))
    x = net.op("Mul", "images", "big", name="scaled")
    net.conv("a", net.qdq(x, name="x"))
    with pytest.raises(TargetError, match=r"the constant big reaches 7e\+04, beyond FP16"):
        to_half(net.model("a_out"))


@pytest.mark.skipif(not rtx.is_available(), reason="TensorRT-RTX (module tensorrt_rtx) is not installed")
def test_real_builder_runs_it_in_int8_and_half(good_net: Any, tmp_path: Path) -> None:
    onnx.save(to_half(good_net.model("head_out")), tmp_path / "half.onnx")
    report = build_check(tmp_path / "half.onnx", planned_convs=("stem", "cv1", "cv2", "last"))
    assert report.ok, report.summary()
    assert any("Half" in (*layer.inputs, *layer.weights) for layer in report.layers if layer.stands_for("head"))
