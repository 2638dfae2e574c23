"""The rewritten DFL decode: same numbers, and only where a DFL really is."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from yoloquant.targets.onnx.dfl import decode_along_last_axis

ANCHORS = 21


def dfl(
    bins: int = 16, *, perm: tuple[int, ...] = (0, 2, 1, 3), axis: int = 1, shared: bool = False
) -> onnx.ModelProto:
    weight = np.arange(bins, dtype=np.float32).reshape(1, bins, 1, 1)
    shape = np.array([1, 4, bins, ANCHORS], np.int64)
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["a"], "reshape"),
        helper.make_node("Transpose", ["a"], ["b"], "transpose", perm=list(perm)),
        helper.make_node("Softmax", ["b"], ["c"], "softmax", axis=axis),
        helper.make_node("Conv", ["c", "weight"], ["d"], "conv"),
        helper.make_node("Reshape", ["d", "flat"], ["y"], "flatten"),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, ANCHORS])]
    if shared:
        nodes.append(helper.make_node("Identity", ["b"], ["z"], "other_reader"))
        outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, bins, 4, ANCHORS]))
    constants = {"shape": shape, "weight": weight, "flat": np.array([1, 4, ANCHORS], np.int64)}
    graph = helper.make_graph(
        nodes,
        "dfl",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4 * bins, ANCHORS])],
        outputs,
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


@pytest.mark.parametrize("bins", [4, 16, 32])
def test_same_boxes(bins: int) -> None:
    x = np.random.default_rng(bins).normal(0, 5, (1, 4 * bins, ANCHORS)).astype(np.float32)
    want = run(dfl(bins), x)
    rewritten = ir.from_proto(dfl(bins))
    assert decode_along_last_axis(rewritten) == 1
    model = ir.to_proto(rewritten)
    assert "Conv" not in [n.op_type for n in model.graph.node]
    assert "weight" not in [i.name for i in model.graph.initializer]
    np.testing.assert_allclose(run(model, x), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", [{"axis": 2}, {"shared": True}])
def test_leaves_everything_else_alone(options: dict[str, object]) -> None:
    model = ir.from_proto(dfl(**options))  # type: ignore[arg-type]
    before = ir.to_proto(model).SerializeToString()
    assert decode_along_last_axis(model) == 0
    assert ir.to_proto(model).SerializeToString() == before
