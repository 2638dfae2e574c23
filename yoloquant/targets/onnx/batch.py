"""From one image to several: a graph that was traced for a batch of one, for a batch of any size.

Images of a batch never meet: the batch is the outermost axis of whatever depends on the input. So only what says that
this axis has a length of 1 has to change, which are reshapes and the descriptions of inputs and outputs; scales,
weights and the order of all operations stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ...errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable

_AXES = {"Concat": 0, "Softmax": -1, "Gather": 0, "Split": 0, "ArgMax": 0}  # defaults of opset 17
_LISTS = frozenset({"Squeeze", "Unsqueeze", "Slice"})


def with_batch(size: int | None) -> Callable[[ir.Model], None]:
    """A rewrite of a finished model.

    Args:
        size: Number of images; None leaves it open.

    Returns:
        The rewrite.

    Raises:
        TargetError: The graph computes across the images of a batch.
    """
    # an open axis has no name: Ultralytics takes a name for leave to change the image size as well
    length = ir.SymbolicDim(None) if size is None else size

    def rewrite(model: ir.Model) -> None:
        # a reshape with an open length has to know what it reads; what is noted may be older than other rewrites
        for node in model.graph:
            for value in node.outputs:
                value.shape = value.shape if value.is_graph_output() else None
        ShapeInferencePass()(model)
        batched: set[ir.Value] = set(model.graph.inputs)
        for node in list(model.graph):
            if not batched.intersection(value for value in node.inputs if value is not None):
                continue
            if node.op_type == "Reshape":
                _reshape(model.graph, node)
            elif _touches_batch(node):
                raise TargetError(
                    f"{node.name} ({node.op_type}) computes across the images of a batch, so that this model runs one "
                    "image at a time; leave batch= and dynamic= out"
                )
            batched.update(node.outputs)
        for value in batched:
            # the others are inferred anew: their shapes are of a batch of one
            value.shape = None if value.producer() is not None and not value.is_graph_output() else value.shape
        for value in (*model.graph.inputs, *model.graph.outputs):
            assert value.shape is not None
            value.shape = ir.Shape([length, *list(value.shape)[1:]])

    return rewrite


def _reshape(graph: ir.Graph, node: ir.Node) -> None:
    """Let the outermost axis be as long as what is left, or as that of the input."""
    source, target = node.inputs[:2]
    if target is None or target.const_value is None or source is None:
        raise TargetError(f"{node.name} computes the shape that it makes; leave batch= and dynamic= out")
    shape = np.array(target.const_value.numpy())
    rest = shape[1:]
    if (rest > 0).all():
        shape[0] = -1
    elif shape[0] == 1 and source.shape is not None and source.shape[0] == 1 and 0 not in rest:
        shape[0] = 0
    else:
        raise TargetError(f"{node.name} makes the shape {tuple(shape)}, in which the batch is lost; leave batch= out")
    # 0 stands for the input's own length unless this says otherwise
    node.attributes.pop("allowzero", None)
    name = f"{node.name}/batched_shape"
    made = ir.val(name, const_value=ir.tensor(shape, name=name))
    graph.register_initializer(made)
    node.replace_input_with(1, made)
    if not target.uses() and target.name is not None and target.name in graph.initializers:
        del graph.initializers[target.name]


def _touches_batch(node: ir.Node) -> bool:
    if node.op_type in _AXES:
        attribute = node.attributes.get("axis")
        return (_AXES[node.op_type] if attribute is None else attribute.as_int()) == 0
    if node.op_type == "Transpose":
        order = node.attributes.get("perm")
        return order is None or order.as_ints()[0] != 0
    if node.op_type in _LISTS:
        axes = node.inputs[3 if node.op_type == "Slice" else 1] if len(node.inputs) > 1 else None
        return axes is None or axes.const_value is None or 0 in np.asarray(axes.const_value.numpy())
    return node.op_type in {"Flatten", "Expand"}
