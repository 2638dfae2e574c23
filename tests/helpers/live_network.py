"""A network that detects something in every picture, without a model behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from yoloquant.types import ExportedModel, ModelInfo, Task


def write_network(path: Path) -> ExportedModel:
    """A network whose output depends on its input: one convolution, as boxes and scores of an 8 x 8 grid."""
    from onnx import TensorProto, helper, numpy_helper, save

    draw = np.random.RandomState(0)
    constants = {
        "weights": draw.normal(0, 0.3, (7, 3, 8, 8)).astype(np.float32),
        "shape": np.array([1, 7, 64], np.int64),
        "scale": np.array([40.0] * 4 + [1.0] * 3, np.float32).reshape(1, 7, 1),
    }
    nodes = [
        helper.make_node("Conv", ["images", "weights"], ["cells"], strides=[8, 8]),
        helper.make_node("Sigmoid", ["cells"], ["ones"]),
        helper.make_node("Reshape", ["ones", "shape"], ["flat"]),
        helper.make_node("Mul", ["flat", "scale"], ["output0"]),
    ]
    sides = [("images", [1, 3, 64, 64]), ("output0", [1, 7, 64])]
    inputs, outputs = ([helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in sides)
    known = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, known)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    info = ModelInfo(Task.DETECT, ("a", "b", "c"), (64, 64))
    return ExportedModel("onnxruntime", path, info, info.layout)
