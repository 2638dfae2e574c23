"""Reductions of opset 18 compute the same in opset 17, in ONNX Runtime and in OpenVINO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from yoloquant.errors import TargetError
from yoloquant.targets.onnx.opset import CANONICAL, EXPORTED, to_canonical
from yoloquant.targets.onnx.reductions import REDUCTIONS
from yoloquant.targets.tensorrt.half import to_half

IMAGE = np.random.default_rng(0).uniform(0.5, 2, (1, 3, 4, 5)).astype(np.float32)


def _reduction(op: str, axes: list[int], keepdims: int) -> ir.Model:
    """What torch exports of a reduction over some axes."""
    node = helper.make_node(op, ["images", "axes"], ["output0"], name="reduce", keepdims=keepdims)
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("images", IMAGE.shape), ("output0", None))
    ]
    kept = [numpy_helper.from_array(np.array(axes, np.int64), "axes")]
    graph = helper.make_graph([node], "reduction", ends[:1], ends[1:], kept)
    opset = helper.make_opsetid("", EXPORTED)
    model: ir.Model = ir.from_proto(helper.make_model(graph, opset_imports=[opset], ir_version=8))
    return model


def _run(model: ir.Model, images: np.ndarray = IMAGE) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"images": images})[0]
    return result


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[1], [2, 3], [-1]])
@pytest.mark.parametrize("op", sorted(REDUCTIONS))
def test_every_reduction_keeps_its_axes_in_both_runtimes(
    op: str, axes: list[int], keepdims: int, tmp_path: Path
) -> None:
    """OpenVINO 2026.4.1 reduces all axes of three of them as opset 17 writes them."""
    openvino = pytest.importorskip("openvino")
    want = _run(_reduction(op, axes, keepdims))
    model = to_canonical(_reduction(op, axes, keepdims))
    assert model.opset_imports[""] == CANONICAL
    got = _run(model)
    assert got.shape == want.shape and np.allclose(got, want, rtol=1e-5)
    onnx.save(ir.to_proto(model), tmp_path / "model.onnx")
    compiled = openvino.compile_model(openvino.convert_model(tmp_path / "model.onnx"), "CPU")
    read = compiled([IMAGE])[0]
    # a processor with bf16 computes in it
    assert read.shape == want.shape and np.allclose(read, want, rtol=0.02)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_logarithms_of_sums_neither_overflow_nor_lose_infinities(keepdims: int) -> None:
    images = IMAGE.copy()
    images[0, 0, 0] = 200
    images[0, 1, 0] = -np.inf
    images[0, 2, 0, 0] = np.inf
    want = _run(_reduction("ReduceLogSumExp", [3], keepdims), images)
    got = _run(to_canonical(_reduction("ReduceLogSumExp", [3], keepdims)), images)
    assert np.isinf(want).sum() == 2 and np.allclose(got, want)


def test_logarithms_of_sums_can_be_stored_in_fp16() -> None:
    """Between two convolutions, which is where TensorRT 11 computes in FP16."""
    nodes = [
        helper.make_node("Conv", ["images", "first"], ["a"], name="before", kernel_shape=[1, 1]),
        helper.make_node("ReduceLogSumExp", ["a", "axes"], ["b"], name="reduce"),
        helper.make_node("Conv", ["b", "second"], ["output0"], name="after", kernel_shape=[1, 1]),
    ]
    kept = [
        numpy_helper.from_array(np.full((3, 3, 1, 1), 0.5, np.float32), "first"),
        numpy_helper.from_array(np.full((2, 1, 1, 1), 0.5, np.float32), "second"),
        numpy_helper.from_array(np.array([1], np.int64), "axes"),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("images", IMAGE.shape), ("output0", [1, 2, 4, 5]))
    ]
    written = helper.make_model(
        helper.make_graph(nodes, "half", ends[:1], ends[1:], kept),
        opset_imports=[helper.make_opsetid("", EXPORTED)],
        ir_version=8,
    )
    want = _run(ir.from_proto(written))
    half = to_half(ir.to_proto(to_canonical(ir.from_proto(written))))
    assert np.allclose(_run(ir.from_proto(half)), want, rtol=0.01)


def test_computed_axes_are_refused() -> None:
    model = _reduction("ReduceL1", [1], 1)
    del model.graph.initializers["axes"]
    model.graph.inputs.append(next(v for n in model.graph for v in n.inputs if v is not None and v.name == "axes"))
    model.graph.inputs[-1].const_value = None
    with pytest.raises(TargetError, match="computed axes"):
        to_canonical(model)
