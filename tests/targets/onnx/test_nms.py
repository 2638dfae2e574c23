"""Suppression in the graph: what the host would select, in rows as Ultralytics has them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from yoloquant.runtime.core.detections import Selection
from yoloquant.runtime.core.nms import non_max_suppression
from yoloquant.targets.onnx.nms import selecting
from yoloquant.types import ModelInfo, Task

CLASSES, ANCHORS, ROWS = 4, 200, 40


def network(batch: int | str = 1, width: int = 0) -> onnx.ModelProto:
    """A graph whose first output is its input: decoded boxes; and another one behind it."""
    shape = [batch, 4 + CLASSES + width, ANCHORS]
    described = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "output0", "output1")]
    nodes = [helper.make_node("Neg", ["x"], ["output1"], "other"), helper.make_node("Neg", ["output1"], ["output0"])]
    graph = helper.make_graph(nodes, "decoded", described[:1], described[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def with_nms(selection: Selection, batch: int | str = 1, width: int = 0) -> onnx.ModelProto:
    info = ModelInfo(Task.DETECT, tuple("abcd"), (64, 64), end2end=True, max_det=ROWS)
    model = ir.from_proto(network(batch, width))
    selecting(info, selection)(model)
    made = ir.to_proto(model)
    onnx.checker.check_model(made, full_check=True)
    return made


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": x}))


def decoded(seed: int, batch: int = 1, width: int = 0, few: bool = False) -> np.ndarray:
    """Boxes that overlap much, with scores that differ all."""
    random = np.random.default_rng(seed)
    centres = random.uniform(10, 50, (batch, 2, ANCHORS))
    sides = random.uniform(8, 30, (batch, 2, ANCHORS))
    scores = random.permutation(batch * CLASSES * ANCHORS).reshape(batch, CLASSES, ANCHORS) / (
        batch * CLASSES * ANCHORS
    )
    further = random.normal(size=(batch, width, ANCHORS))
    return np.concatenate([centres, sides, scores * (0.05 if few else 1), further], axis=1).astype(np.float32)


@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize("width", [0, 3])
def test_selects_what_the_host_selects(multi_label: bool, width: int) -> None:
    selection = Selection(conf=0.3, iou=0.45, max_det=ROWS, multi_label=multi_label)
    x = decoded(width, width=width)
    rows, behind = run(with_nms(selection, width=width), x)
    want = non_max_suppression(x, 0.3, 0.45, ROWS, multi_label=multi_label, classes=CLASSES)
    assert rows.shape == (1, ROWS, 6 + width) and 10 < len(want) <= ROWS
    np.testing.assert_allclose(rows[0, : len(want)], want, rtol=0, atol=1e-5)
    assert not rows[0, len(want) :].any()
    np.testing.assert_array_equal(behind, -x)


def test_nothing_found_is_rows_of_zeros() -> None:
    (rows, _) = run(with_nms(Selection(conf=0.3)), decoded(1, few=True))
    assert rows.shape == (1, ROWS, 6) and not rows.any()


@pytest.mark.parametrize("batch", [3, "n"])
def test_images_of_a_batch_are_selected_each_by_itself(batch: int | str) -> None:
    """One of them has few detections, so that its rows end in zeros between two full ones."""
    selection = Selection(conf=0.0485, iou=0.45, max_det=ROWS)
    x = np.concatenate([decoded(2), decoded(3, few=True), decoded(4)])
    (rows, _) = run(with_nms(selection, batch), x)
    alone = [run(with_nms(selection), image[None])[0] for image in x]
    assert 0 < np.count_nonzero(rows[1, :, 4]) < ROWS and rows[0, -1, 4] > 0
    np.testing.assert_array_equal(rows, np.concatenate(alone))


def test_openvino_selects_the_same(tmp_path: object) -> None:
    pytest.importorskip("openvino")
    from yoloquant.runtime.backends.openvino import shared_core

    selection = Selection(conf=0.3, iou=0.45, max_det=ROWS)
    model, x = with_nms(selection, width=2), decoded(5, width=2)
    path = f"{tmp_path}/nms.onnx"
    onnx.save(model, path)
    compiled = shared_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled([x])[0], run(model, x)[0], rtol=0, atol=1e-5)
