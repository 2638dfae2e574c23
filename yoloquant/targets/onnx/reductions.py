"""Reductions as opset 17 writes them, in forms that every runtime computes.

Until opset 17 the axes of all reductions but ReduceSum are an attribute. OpenVINO 2026.4.1 overlooks it for ReduceL1,
ReduceLogSum and ReduceLogSumExp of opset 13 to 17 and reduces all axes (seen by
``findings/openvino-reducel1-of-opset-13-to-17-ignores-its-axes.sh``). They are written out around a ReduceSum, whose
axes are an input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

REDUCTIONS = frozenset(
    f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)
"""What takes its axes from an attribute in opset 17 and from an input in opset 18."""

_FINITE = float(np.finfo(np.float16).max)  # the model may be stored in FP16; no score comes near it


def lower(graph: ir.Graph, node: ir.Node, opset: int) -> None:
    """Rewrite a reduction of opset 18 that names its axes, in place.

    Args:
        graph: The graph that it is in.
        node: One of ``REDUCTIONS`` with a second input.
        opset: The opset that it becomes part of, for messages.

    Raises:
        TargetError: Its axes are computed, which an attribute cannot say.
    """
    axes = node.inputs[1]
    if axes is None or axes.const_value is None:
        raise TargetError(f"{node.name}: {node.op_type} over computed axes does not exist in opset {opset}")
    # only means something for empty axes, and these are not
    node.attributes.pop("noop_with_empty_axes", None)
    if node.op_type == "ReduceL1":
        _become(node, "ReduceSum", [_before(graph, node, "Abs", [node.inputs[0]]), axes])
    elif node.op_type == "ReduceLogSum":
        total = _before(graph, node, "ReduceSum", node.inputs, keepdims=_keeps(node))
        _become(node, "Log", [total])
    elif node.op_type == "ReduceLogSumExp":
        _log_sum_exp(graph, node, axes)
    else:
        _become(node, node.op_type, [node.inputs[0]], axes=_numbers(axes))


def _log_sum_exp(graph: ir.Graph, node: ir.Node, axes: ir.Value) -> None:
    """The largest value plus the logarithm of what the others are beside it, so that nothing overflows."""
    largest = _finite_maximum(graph, node, axes)
    powers = _before(graph, node, "Exp", [_before(graph, node, "Sub", [node.inputs[0], largest])])
    logarithm = _before(graph, node, "Log", [_before(graph, node, "ReduceSum", [powers, axes], keepdims=1)])
    if _keeps(node):
        _become(node, "Add", [logarithm, largest])
    else:
        _become(node, "Squeeze", [_before(graph, node, "Add", [logarithm, largest]), axes])


def _finite_maximum(graph: ir.Graph, node: ir.Node, axes: ir.Value) -> ir.Value:
    """The maximum over the axes, never infinite: infinity minus itself is no number."""
    import onnx_ir as ir

    maximum = _before(graph, node, "ReduceMax", [node.inputs[0]], axes=_numbers(axes), keepdims=1)
    limits = []
    for name, value in (("lowest", -_FINITE), ("highest", _FINITE)):
        title = f"{node.name}/{name}"
        limits.append(ir.val(title, const_value=ir.tensor(np.float32(value), name=title)))
        graph.register_initializer(limits[-1])
    return _before(graph, node, "Clip", [maximum, *limits])


def _before(
    graph: ir.Graph, node: ir.Node, op: str, inputs: Sequence[ir.Value | None], **attributes: int | list[int]
) -> ir.Value:
    """The result of a new operation in front of a node."""
    import onnx_ir as ir

    made = ir.node(op, list(inputs), attributes)
    made.name = made.outputs[0].name = f"{node.name}/{op}"
    graph.insert_before(node, made)
    return made.outputs[0]


def _become(node: ir.Node, op: str, inputs: Sequence[ir.Value | None], *, axes: list[int] | None = None) -> None:
    """Let a node compute something else; whoever reads its result reads it as before."""
    import onnx_ir as ir

    node.op_type = op
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)
    if not op.startswith("Reduce"):
        node.attributes.clear()
    if axes is not None:
        node.attributes.add(ir.AttrInt64s("axes", axes))


def _keeps(node: ir.Node) -> int:
    return int(node.attributes.get_int("keepdims", 1))


def _numbers(axes: ir.Value) -> list[int]:
    return [int(a) for a in axes.const_value.numpy()]  # type: ignore[union-attr]
