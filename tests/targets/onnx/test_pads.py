"""Zeros in front of a max pool stay zeros in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from yoloquant.targets.onnx.pads import keep_zero_pads

SIZE = 4
IMAGE = -1 - np.arange(SIZE * SIZE, dtype=np.float32).reshape(1, 1, SIZE, SIZE)
"""All negative, as a map behind a SiLU may be at an edge."""


def _padded_pool(value: float | None, pool: str = "MaxPool") -> ir.Model:
    """What torch exports of ``ZeroPad2d((0, 1, 0, 1))`` and ``MaxPool2d(2, 1)``."""
    kept = [numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64), "pads")]
    if value is not None:
        kept.append(numpy_helper.from_array(np.float32(value), "value"))
    nodes = [
        helper.make_node("Pad", ["images", "pads"] + ["value"] * (value is not None), ["padded"], name="pad"),
        helper.make_node(pool, ["padded"], ["output0"], name="pool", kernel_shape=[2, 2], strides=[1, 1]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, SIZE, SIZE]) for n in ("images", "output0")]
    graph = helper.make_graph(nodes, "pads", ends[:1], ends[1:], kept)
    opset = helper.make_opsetid("", 17)
    model: ir.Model = ir.from_proto(helper.make_model(graph, opset_imports=[opset], ir_version=8))
    return model


def _run(model: ir.Model) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"images": IMAGE})[0]
    return result


@pytest.mark.parametrize("value", [0.0, None])
def test_the_last_row_and_column_see_the_zeros(value: float | None) -> None:
    model = _padded_pool(value)
    assert keep_zero_pads(model) == 1
    result = _run(model)
    assert np.allclose(result[..., -1], 0) and np.allclose(result[..., -1, :], 0)
    assert np.array_equal(result[..., :-1, :-1], IMAGE[..., :-1, :-1])
    assert "value" not in model.graph.initializers


@pytest.mark.parametrize(("value", "pool"), [(-1.0, "MaxPool"), (0.0, "AveragePool")])
def test_other_pads_stay_as_they_are(value: float, pool: str) -> None:
    model = _padded_pool(value, pool)
    before = ir.to_proto(model).SerializeToString()
    assert keep_zero_pads(model) == 0
    assert ir.to_proto(model).SerializeToString() == before
