"""Suppression by TensorRT's own plugin ``EfficientNMS_TRT``, and its stand-in where there is no TensorRT.

The plugin's contract, from its README (github.com/NVIDIA/TensorRT, ``plugin/efficientNMSPlugin``): it reads boxes
(batch, anchors, 4) and scores (batch, anchors, classes), goes through each class by itself, and returns
``num_detections`` (batch, 1) int32, ``detection_boxes`` (batch, rows, 4), ``detection_scores`` (batch, rows) and
``detection_classes`` (batch, rows) int32. ``background_class`` -1 means none, ``score_activation`` 0 that scores are
probabilities, ``box_coding`` 0 that boxes are corners. ``class_agnostic``, which not every release knows, is off where
it is not said.

Only TensorRT has it. What simulates this target replaces it by ONNX's ``NonMaxSuppression``, behind the 4096 best
scores of an image, which are all that the plugin looks at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from ...errors import ArtifactError
from ...runtime.core.detections import Selection
from ...runtime.tensorrt.plugin_outputs import DOMAIN, NAMES, OPERATOR
from ..onnx.nms import GraphBuilder, best_class, corners_of, describe, replace_outputs, select_corners, split_decoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...types import ModelInfo

_PREFIX = "nms"
_CANDIDATES = 4096


def selecting_on_device(info: ModelInfo, selection: Selection) -> Callable[[ir.Model], None]:
    """A rewrite that lets the plugin select detections, with its four outputs instead of the first one.

    Args:
        info: The model as it is exported: ``max_det`` rows.
        selection: Thresholds.
    """

    def rewrite(model: ir.Model) -> None:
        builder, decoded = GraphBuilder(model.graph, _PREFIX), model.graph.outputs[0]
        boxes, scores, _ = split_decoded(builder, decoded, len(info.names))
        scores = scores if selection.multi_label else best_class(builder, scores)
        operands = [corners_of(builder, boxes), builder("Transpose", [scores], "scores", perm=[0, 2, 1])]
        outputs = builder(
            OPERATOR,
            operands,
            "suppress",
            count=4,
            domain=DOMAIN,
            plugin_version="1",
            score_threshold=float(selection.conf),
            iou_threshold=float(selection.iou),
            max_output_boxes=info.max_det,
            background_class=-1,
            score_activation=0,
            box_coding=0,
        )
        assert decoded.shape is not None
        batch, rows = decoded.shape[0], info.max_det
        shapes = ((batch, 1), (batch, rows, 4), (batch, rows), (batch, rows))
        kinds = (ir.DataType.INT32, ir.DataType.FLOAT, ir.DataType.FLOAT, ir.DataType.INT32)
        for output, shape, kind in zip(outputs, shapes, kinds, strict=True):
            describe(output, shape, kind)
        replace_outputs(model.graph, outputs, NAMES)
        model.opset_imports[DOMAIN] = 1

    return rewrite


def simulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model with the plugin replaced by standard operators, whose output is (batch, rows, 6).

    Args:
        model: What this target exports.

    Returns:
        The same model where there is no plugin in it.

    Raises:
        ArtifactError: The plugin reads something else than this target writes.
    """
    if all(node.op_type != OPERATOR for node in model.graph.node):
        return model
    # files say nothing of what lies between input and outputs
    made = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    plugins = [node for node in made.graph if node.op_type == OPERATOR]
    (plugin,) = plugins
    corners, turned = plugin.inputs
    source = turned.producer() if turned is not None else None
    if corners is None or source is None or source.op_type != "Transpose" or source.inputs[0] is None:
        raise ArtifactError(f"{plugin.name} of the ONNX model reads no transposed scores; export it again")
    attributes = plugin.attributes
    selection = Selection(attributes["score_threshold"].as_float(), attributes["iou_threshold"].as_float())
    rows = attributes["max_output_boxes"].as_int()
    builder = GraphBuilder(made.graph, f"{_PREFIX}/simulated")
    candidates = _strongest(builder, source.inputs[0])
    selected = select_corners(builder, corners, candidates, None, selection, rows)
    first = made.graph.outputs[0].shape
    describe(selected, (first[0] if first is not None else 1, rows, 6), ir.DataType.FLOAT)
    made.graph.outputs.clear()
    made.graph.outputs.append(selected)
    for node in (plugin, source):
        made.graph.remove(node, safe=True)
    del made.opset_imports[DOMAIN]
    return ir.to_proto(made)


def _strongest(builder: GraphBuilder, scores: ir.Value) -> ir.Value:
    """Scores (batch, classes, anchors) with zeros for all but the plugin's candidates."""
    assert scores.shape is not None
    _, classes, anchors = scores.shape
    count = min(_CANDIDATES, int(classes) * int(anchors))  # type: ignore[arg-type]
    flat = builder("Reshape", [scores, builder.constant("flat", [0, -1], np.int64)], "flat_scores")
    best, _ = builder("TopK", [flat, builder.constant("candidates", [count], np.int64)], "strongest", count=2, axis=1)
    last = builder("Gather", [best, builder.constant("weakest", [[count - 1]], np.int64)], "limit", axis=1)
    above = builder("GreaterOrEqual", [scores, last], "is_candidate")
    zero = builder.constant("no_score", 0, np.float32)
    result: ir.Value = builder("Where", [above, scores, zero], "candidate_scores")
    describe(result, scores.shape, ir.DataType.FLOAT)
    return result
