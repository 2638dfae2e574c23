"""Non-maximum suppression as a part of an ONNX graph, with what the host's would select.

ONNX's ``NonMaxSuppression`` goes through each class by itself, as Ultralytics' validator does: a box may be found once
for each class. Its result is a list of any length, over all images of a batch; rows of zeros fill it up to
(batch, max_det, 6 + further): x1, y1, x2, y2, score, class, and what a task predicts besides. That is the layout of
Ultralytics' ``nms=True``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ...runtime.core.detections import Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...types import ModelInfo

_PREFIX = "nms"


def selecting(info: ModelInfo, selection: Selection) -> Callable[[ir.Model], None]:
    """A rewrite that lets the first output be selected detections instead of all anchors.

    Args:
        info: The model as it is exported: ``max_det`` rows.
        selection: Thresholds.
    """

    def rewrite(model: ir.Model) -> None:
        builder, decoded = GraphBuilder(model.graph, _PREFIX), model.graph.outputs[0]
        boxes, scores, further = split_decoded(builder, decoded, len(info.names))
        rows = select(builder, boxes, scores, further, selection, info.max_det)
        assert decoded.shape is not None
        batch, width = decoded.shape[0], int(decoded.shape[1]) - len(info.names)  # type: ignore[arg-type]
        describe(rows, (batch, info.max_det, width + 2), ir.DataType.FLOAT)
        replace_outputs(model.graph, [rows], ["output0"])

    return rewrite


class GraphBuilder:
    """Appends nodes to a graph, named under one prefix.

    Args:
        graph: The graph.
        prefix: Of every name.
    """

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self.graph, self.prefix = graph, prefix

    def __call__(
        self, kind: str, inputs: Sequence[ir.Value], part: str, *, count: int = 1, domain: str = "", **attributes: Any
    ) -> Any:
        """Append a node.

        Args:
            kind: Its operator.
            inputs: What it reads.
            part: Its name.
            count: Number of its outputs.
            domain: Domain of the operator.
            **attributes: Its attributes.

        Returns:
            Its output, or a tuple of several.
        """
        name = f"{self.prefix}/{part}"
        node = ir.node(kind, list(inputs), attributes or None, name=name, num_outputs=count, domain=domain)
        for index, output in enumerate(node.outputs):
            output.name = name if count == 1 else f"{name}:{index}"
        self.graph.append(node)
        return node.outputs[0] if count == 1 else tuple(node.outputs)

    def constant(self, part: str, value: Any, dtype: Any) -> ir.Value:
        """An initializer."""
        name = f"{self.prefix}/{part}"
        made = ir.val(name, const_value=ir.tensor(np.asarray(value, dtype=dtype), name=name))
        self.graph.register_initializer(made)
        return made


def split_decoded(builder: GraphBuilder, decoded: ir.Value, classes: int) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """Cut a decoded output (batch, 4 + classes + further, anchors) into its parts.

    Returns:
        Boxes (batch, anchors, 4) as centre and sides, scores (batch, classes, anchors), and (batch, anchors, further)
        or None.
    """
    decoded.name = f"{builder.prefix}/decoded"
    assert decoded.shape is not None
    batch, height, anchors = decoded.shape
    sizes = [4, classes, int(height) - 4 - classes]  # type: ignore[arg-type]
    sizes = sizes if sizes[2] else sizes[:2]
    parts = builder("Split", [decoded, builder.constant("sizes", sizes, np.int64)], "split", count=len(sizes), axis=1)
    for part, size in zip(parts, sizes, strict=True):
        describe(part, (batch, size, anchors), ir.DataType.FLOAT)
    boxes = builder("Transpose", [parts[0]], "boxes", perm=[0, 2, 1])
    further = builder("Transpose", [parts[2]], "all_further", perm=[0, 2, 1]) if len(parts) > 2 else None
    return boxes, parts[1], further


def describe(value: ir.Value, shape: Sequence[Any] | ir.Shape, kind: ir.DataType) -> None:
    """Note the shape and type of a value."""
    value.shape, value.type = ir.Shape(shape), ir.TensorType(kind)


def select(
    builder: GraphBuilder,
    boxes: ir.Value,
    scores: ir.Value,
    further: ir.Value | None,
    selection: Selection,
    rows: int,
) -> ir.Value:
    """Append the suppression; boxes, scores and further values as ``split_decoded`` returns them.

    Returns:
        (batch, rows, 6 + further) by falling score, zeros behind the last detection.
    """
    candidates = scores if selection.multi_label else best_class(builder, scores)
    return select_corners(builder, corners_of(builder, boxes), candidates, further, selection, rows)


def select_corners(
    builder: GraphBuilder,
    corners: ir.Value,
    scores: ir.Value,
    further: ir.Value | None,
    selection: Selection,
    rows: int,
) -> ir.Value:
    """The same for boxes (batch, anchors, 4) that are x1, y1, x2, y2 and scores that all count."""
    limits = [
        builder.constant("rows", rows, np.int64),
        builder.constant("iou", selection.iou, np.float32),
        builder.constant("conf", selection.conf, np.float32),
    ]
    # image, class and anchor of every detection of every image
    found = builder("NonMaxSuppression", [corners, scores, *limits], "suppress")
    thirds = builder.constant("thirds", [1, 1, 1], np.int64)
    image, label, anchor = builder("Split", [found, thirds], "indices", count=3, axis=1)
    place = builder("Concat", [image, anchor], "place", axis=1)
    score = builder("GatherND", [scores, found], "score")
    parts = [
        builder("GatherND", [corners, place], "box"),
        builder("Unsqueeze", [score, builder.constant("last", [1], np.int64)], "score_column"),
        builder("Cast", [label], "class", to=int(ir.DataType.FLOAT)),
    ]
    if further is not None:
        parts.append(builder("GatherND", [further, place], "further"))
    # as many rows of zeros as there are in the output: they are what is left where too few are found
    zeros = builder.constant("zero_rows", [0, 0, rows, 0], np.int64)
    table = builder("Pad", [builder("Concat", parts, "found", axis=1), zeros], "table")
    chosen = _best_of_each(builder, image, score, _images(builder, scores), rows)
    result: ir.Value = builder("Gather", [table, chosen], "selected", axis=0)
    return result


def best_class(builder: GraphBuilder, scores: ir.Value) -> ir.Value:
    """Scores (batch, classes, anchors) with zeros for all but the best class of each anchor."""
    assert scores.shape is not None
    best = builder("ArgMax", [scores], "best_class", axis=1, keepdims=1)
    numbers = builder.constant("class_numbers", np.arange(int(scores.shape[1]))[None, :, None], np.int64)  # type: ignore[arg-type]
    own = builder("Equal", [best, numbers], "is_best")
    result: ir.Value = builder("Where", [own, scores, builder.constant("zero", 0, np.float32)], "best_scores")
    describe(result, scores.shape, ir.DataType.FLOAT)
    return result


def corners_of(builder: GraphBuilder, boxes: ir.Value) -> ir.Value:
    """x1, y1, x2, y2 of (batch, anchors, 4) as centre and sides, in the host's order of operations."""
    halves = builder.constant("halves", [2, 2], np.int64)
    centre, sides = builder("Split", [boxes, halves], "centre_and_sides", count=2, axis=2)
    half = builder("Mul", [sides, builder.constant("half", 0.5, np.float32)], "half_sides")
    ends = [builder("Sub", [centre, half], "low"), builder("Add", [centre, half], "high")]
    result: ir.Value = builder("Concat", ends, "corners", axis=2)
    return result


def _images(builder: GraphBuilder, scores: ir.Value) -> ir.Value:
    """Numbers of the batch's images, (batch, 1)."""
    assert scores.shape is not None
    batch = scores.shape[0]
    if isinstance(batch, int):
        return builder.constant("images", np.arange(batch)[:, None], np.int64)
    first, one = (builder.constant(name, value, np.int64) for name, value in (("first", 0), ("one", 1)))
    count = builder("Gather", [builder("Shape", [scores], "shape"), first], "batch", axis=0)
    numbers = builder("Range", [first, count, one], "numbers")
    column: ir.Value = builder("Unsqueeze", [numbers, builder.constant("column", [1], np.int64)], "images")
    return column


def _best_of_each(builder: GraphBuilder, image: ir.Value, score: ir.Value, images: ir.Value, rows: int) -> ir.Value:
    """Rows (batch, rows) of the table with each image's best detections, by falling score."""
    own = builder("Equal", [images, builder("Transpose", [image], "image_of", perm=[1, 0])], "is_own")
    # below the zeros of the empty rows, so that no other image's detection comes before them
    scores = builder("Where", [own, score, builder.constant("others", -1, np.float32)], "own_scores")
    padded = builder("Pad", [scores, builder.constant("zero_scores", [0, 0, 0, rows], np.int64)], "all_scores")
    count = builder.constant("count", [rows], np.int64)
    _, chosen = builder("TopK", [padded, count], "best", count=2, axis=1)
    result: ir.Value = chosen
    return result


def replace_outputs(graph: ir.Graph, outputs: Sequence[ir.Value], names: Sequence[str]) -> None:
    """Let some values take the place of the first output; those behind it stay.

    Args:
        graph: The graph.
        outputs: Values with the shape and type that the file is to say.
        names: Their names.
    """
    behind = list(graph.outputs)[1:]
    graph.outputs.clear()
    graph.outputs.extend([*outputs, *behind])
    for output, name in zip(outputs, names, strict=True):
        output.name = name
