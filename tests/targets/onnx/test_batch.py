"""Graphs for several images: each image's result is what it is alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from yoloquant.errors import TargetError
from yoloquant.targets.onnx.batch import with_batch


def attention() -> onnx.ModelProto:
    """Reshapes as models have them: one with a length left open, heads, and areas that become images of their own."""
    shapes = {"heads": [1, 2, 4, 36], "areas": [4, 9, 8], "back": [1, 8, 6, 6], "flat": [1, 8, -1]}
    nodes = [
        helper.make_node("Reshape", ["images", "heads"], ["a"], "to_heads", allowzero=1),
        helper.make_node("Transpose", ["a"], ["b"], "swap", perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["b", "a"], ["c"], "product"),
        helper.make_node("Softmax", ["c"], ["d"], "softmax", axis=-1),
        helper.make_node("MatMul", ["a", "d"], ["e"], "weighted"),
        helper.make_node("Reshape", ["e", "areas"], ["f"], "to_areas"),
        helper.make_node("Softmax", ["f"], ["g"], "within_areas", axis=1),
        helper.make_node("Reshape", ["g", "back"], ["h"], "from_areas"),
        helper.make_node("Reshape", ["h", "flat"], ["i"], "flatten", allowzero=1),
        helper.make_node("Add", ["i", "anchors"], ["output0"], "anchors"),
    ]
    constants: dict[str, np.ndarray] = {name: np.array(shape, np.int64) for name, shape in shapes.items()}
    constants["anchors"] = np.linspace(0, 1, 36, dtype=np.float32).reshape(1, 1, 36)
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 8, 6, 6])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 8, 36])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    # what an exporter noted before somebody rewrote the graph is no reason to stop
    model.graph.value_info.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 2, 4, 36]))
    return model


def rewritten(model: onnx.ModelProto, size: int | None) -> onnx.ModelProto:
    made = ir.from_proto(model)
    with_batch(size)(made)
    result = ir.to_proto(made)
    onnx.checker.check_model(result, full_check=True)
    return result


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("size", [3, None])
def test_images_of_a_batch_never_meet(size: int | None) -> None:
    images = np.random.default_rng(0).normal(size=(3, 8, 6, 6)).astype(np.float32)
    one, several = session(attention()), session(rewritten(attention(), size))
    want = np.concatenate([one.run(None, {"images": image[None]})[0] for image in images])
    np.testing.assert_allclose(several.run(None, {"images": images})[0], want, rtol=0, atol=1e-6)


def test_the_file_says_how_many_images_it_takes() -> None:
    fixed, open_ = session(rewritten(attention(), 4)), session(rewritten(attention(), None))
    assert fixed.get_inputs()[0].shape == [4, 8, 6, 6] and fixed.get_outputs()[0].shape == [4, 8, 36]
    assert open_.get_inputs()[0].shape[1:] == [8, 6, 6]
    # by a name here Ultralytics would think that images may have any size
    assert not isinstance(open_.get_outputs()[0].shape[0], str)
    for size in (1, 2):
        assert open_.run(None, {"images": np.zeros((size, 8, 6, 6), np.float32)})[0].shape == (size, 8, 36)


@pytest.mark.parametrize(
    ("kind", "attributes"), [("Concat", {"axis": 0}), ("Softmax", {"axis": 0}), ("Transpose", {"perm": [1, 0, 2, 3]})]
)
def test_what_crosses_images_is_refused(kind: str, attributes: dict[str, object]) -> None:
    model = attention()
    model.graph.node.append(helper.make_node(kind, ["images"], ["z"], "across", **attributes))
    with pytest.raises(TargetError, match=rf"across \({kind}\) computes across the images"):
        rewritten(model, 2)
