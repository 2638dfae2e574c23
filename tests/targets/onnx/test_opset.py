"""From opset 18 to 17: what is rewritten computes the same in every runtime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from yoloquant.targets.onnx.opset import CANONICAL, EXPORTED, to_canonical


def _pool(pads: int) -> ir.Model:
    """An average pool between int8 pairs, as torch exports ``AvgPool2d(2, 2, pads, ceil_mode=True)``."""
    kept = [numpy_helper.from_array(np.float32(0.01), "scale"), numpy_helper.from_array(np.uint8(0), "zero")]
    pool = helper.make_node(
        "AveragePool",
        ["a"],
        ["b"],
        kernel_shape=[2, 2],
        strides=[2, 2],
        pads=[pads] * 4,
        ceil_mode=1,
        count_include_pad=1,
    )
    nodes = []
    for source, result in (("images", "a"), ("b", "output0")):
        nodes.append(helper.make_node("QuantizeLinear", [source, "scale", "zero"], [f"{result}_codes"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{result}_codes", "scale", "zero"], [result]))
    nodes.insert(2, pool)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", [1, 1, 5, 5]), ("output0", None))
    ]
    graph = helper.make_graph(nodes, "pool", ends[:1], ends[1:], kept)
    opset = helper.make_opsetid("", EXPORTED)
    return ir.from_proto(helper.make_model(graph, opset_imports=[opset], ir_version=8))


def test_a_pool_without_padding_averages_only_what_is_there_in_integers_too() -> None:
    model = to_canonical(_pool(0))
    assert model.opset_imports[""] == CANONICAL
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    result = session.run(None, {"images": np.ones((1, 1, 5, 5), np.float32)})[0]
    assert np.allclose(result, 1)


@pytest.mark.parametrize(("pads", "counts"), [(0, False), (1, True)])
def test_padding_that_exists_still_counts(pads: int, counts: bool) -> None:
    (pool,) = (node for node in to_canonical(_pool(pads)).graph if node.op_type == "AveragePool")
    assert ("count_include_pad" in pool.attributes) == counts
