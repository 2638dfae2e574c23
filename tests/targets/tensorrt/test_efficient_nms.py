"""TensorRT's suppression as a node of the model, and what stands in for it here."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from yoloquant.errors import ArtifactError
from yoloquant.runtime.core.detections import Selection
from yoloquant.runtime.core.nms import non_max_suppression
from yoloquant.runtime.tensorrt.plugin_outputs import DOMAIN, NAMES, OPERATOR
from yoloquant.targets.onnx.emit import checked
from yoloquant.targets.tensorrt.efficient_nms import selecting_on_device, simulated
from yoloquant.targets.tensorrt.half import to_half
from yoloquant.targets.tensorrt.lint import lint
from yoloquant.types import ModelInfo, Task

CLASSES, ANCHORS, ROWS = 40, 300, 50  # more scores than the plugin looks at
SELECTION = Selection(conf=0.001, iou=0.45, max_det=ROWS)


def model(selection: Selection = SELECTION) -> onnx.ModelProto:
    shape = [1, 4 + CLASSES, ANCHORS]
    described = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("images", "output0")]
    nodes = [helper.make_node("Identity", ["images"], ["output0"], "decode")]
    graph = helper.make_graph(nodes, "decoded", described[:1], described[1:])
    made = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    info = ModelInfo(Task.DETECT, tuple(map(str, range(CLASSES))), (64, 64), end2end=True, max_det=ROWS)
    selecting_on_device(info, selection)(made)
    return checked(made)


def decoded(seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    scores = random.permutation(CLASSES * ANCHORS).reshape(1, CLASSES, ANCHORS) / (CLASSES * ANCHORS)
    parts = random.uniform(10, 50, (1, 2, ANCHORS)), random.uniform(8, 30, (1, 2, ANCHORS)), scores
    return np.concatenate(parts, axis=1).astype(np.float32)


def test_the_node_keeps_the_plugins_contract() -> None:
    made = model()
    onnx.checker.check_model(made, full_check=True)
    node = next(n for n in made.graph.node if n.op_type == OPERATOR)
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert node.domain == DOMAIN and [o.name for o in made.graph.output] == list(node.output) == list(NAMES)
    assert (values["max_output_boxes"], values["background_class"], values["score_activation"]) == (ROWS, -1, 0)
    assert values["box_coding"] == 0 and values["plugin_version"] == b"1"
    assert (values["score_threshold"], values["iou_threshold"]) == pytest.approx((0.001, 0.45))
    shapes = [[d.dim_value for d in o.type.tensor_type.shape.dim] for o in made.graph.output]
    assert shapes == [[1, 1], [1, ROWS, 4], [1, ROWS], [1, ROWS]]
    kinds = [o.type.tensor_type.elem_type for o in made.graph.output]
    assert kinds == [TensorProto.INT32, TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT32]


def test_it_passes_the_rules_and_the_typing_in_float16() -> None:
    assert lint(model()) == ()
    assert [n.op_type for n in to_half(model()).graph.node].count(OPERATOR) == 1


@pytest.mark.parametrize("multi_label", [True, False])
def test_the_stand_in_selects_what_the_host_selects_from_as_many_candidates(multi_label: bool) -> None:
    made = simulated(model(Selection(conf=0.001, iou=0.45, multi_label=multi_label)))
    onnx.checker.check_model(made, full_check=True)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    x = decoded()
    (rows,) = session.run(None, {"images": x})
    want = non_max_suppression(x, 0.001, 0.45, ROWS, multi_label=multi_label, max_nms=4096)
    assert rows.shape == (1, ROWS, 6) and len(want) == ROWS
    np.testing.assert_allclose(rows[0], want, rtol=0, atol=1e-5)


def test_a_model_without_the_plugin_stays_as_it_is() -> None:
    made = model()
    plain = onnx.ModelProto()
    plain.CopyFrom(made)
    del plain.graph.node[-1]
    assert simulated(plain) is plain
    made.graph.node[-1].input[1] = "images"
    with pytest.raises(ArtifactError, match="transposed scores"):
        simulated(made)
