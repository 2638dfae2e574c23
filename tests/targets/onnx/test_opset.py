"""From opset 18 to 17: what is rewritten computes the same in every runtime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
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


@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize("pads", [0, 1])
@pytest.mark.parametrize("kind", ["maximum", "average", "average that counts"])
def test_the_last_window_of_a_pool_may_reach_beyond_the_edge(kind: str, pads: int, size: int) -> None:
    """In integers as in torch, which says how many windows there are."""
    x = torch.arange(size * size).remainder(97).reshape(1, 1, size, size) * 0.01 - 0.4
    counts = kind == "average that counts"
    if kind == "maximum":
        want = torch.nn.functional.max_pool2d(x, 3, 2, pads, ceil_mode=True)
    else:
        want = torch.nn.functional.avg_pool2d(x, 3, 2, pads, ceil_mode=True, count_include_pad=counts)
    written = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["codes"]),
                helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["a"]),
                helper.make_node(
                    "MaxPool" if kind == "maximum" else "AveragePool",
                    ["a"],
                    ["b"],
                    name="pool",
                    kernel_shape=[3, 3],
                    strides=[2, 2],
                    pads=[pads] * 4,
                    ceil_mode=1,
                    **({} if kind == "maximum" else {"count_include_pad": int(counts)}),
                ),
                helper.make_node("QuantizeLinear", ["b", "scale", "zero"], ["result"]),
                helper.make_node("DequantizeLinear", ["result", "scale", "zero"], ["output0"]),
            ],
            "pool",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 1, size, size])],
            [helper.make_tensor_value_info("output0", TensorProto.FLOAT, list(want.shape))],
            [numpy_helper.from_array(np.float32(0.01), "scale"), numpy_helper.from_array(np.uint8(40), "zero")],
            value_info=[
                helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 1, size, size]),
                helper.make_tensor_value_info("b", TensorProto.FLOAT, list(want.shape)),
            ],
        ),
        opset_imports=[helper.make_opsetid("", EXPORTED)],
        ir_version=8,
    )
    model = ir.to_proto(to_canonical(ir.from_proto(written)))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result = session.run(None, {"images": x.numpy()})[0]
    assert np.abs(result - want.numpy()).max() < 0.0051, "half a step"
