"""From a calibrated plan to the bytes of a ``.pte``.

Everything that depends on ExecuTorch's exporter is in this file.
"""

from __future__ import annotations

import contextlib
import logging
import operator
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from ...errors import TargetError
from ...graph.head_levels import head_levels
from ...graph.trace import QUANTIZATION_AGNOSTIC, Graph
from ...quantization.insert import copy_module, insert, put_behind
from ...quantization.plan import Plan
from ...runtime.tasks import spec_of
from ...types import ModelInfo
from ..litert.convert import cut_body
from ..litert.qdq import DEQUANTIZE, PER_TENSOR, QUANTIZE, make_pair
from ..litert.tail import DecodeTail, Softmax

aten = torch.ops.aten


class _DropIn(nn.Module):
    """The body and the float decode of a drop-in, in pixels."""

    def __init__(self, body: fx.GraphModule, info: ModelInfo) -> None:
        super().__init__()
        task = spec_of(info.task)
        self.body = body
        self.tail = DecodeTail(info, task.branches, normalize=False) if task.branches else Softmax()

    def forward(self, image: Tensor) -> Any:
        return self.tail(self.body(image))


def lower(graph: Graph, plan: Plan | None, *, bias: Mapping[str, np.ndarray] | None = None) -> bytes:
    """Export a model for XNNPACK.

    Args:
        graph: The canonical graph.
        plan: A calibrated plan of this target's scheme; None for the float model.
        bias: Bias corrections, see ``quantization.insert``.

    Returns:
        The file's bytes.

    Raises:
        PlanError: The head cannot be cut into levels, or the plan belongs to another model.
        TargetError: ExecuTorch failed.
    """
    module = insert(graph, plan, make_pair, bias=dict(bias or {})) if plan else copy_module(graph)
    # Before pairs are carried on: every slice then has a result of its own to put one behind.
    slice_splits(module)
    if plan is not None:
        carry(module, graph, plan)
    body = cut_body(module, [graph.fx_name(name) for name in head_levels(graph)])
    if plan is not None:
        double_by_copies(body)
        fold_weights(body)
        dequantize_for_each(body)
    info = graph.info
    example = torch.zeros(1, info.channels, *info.imgsz)
    with torch.no_grad(), _quiet():
        try:
            return lowered(_DropIn(body, info).eval(), example)
        except Exception as exc:  # the exporter raises whatever its layers raise
            raise TargetError(f"ExecuTorch could not export the model: {type(exc).__name__}: {exc}"[:800]) from exc


def lowered(module: nn.Module, example: Tensor) -> bytes:
    """The bytes of a module whose integers are marked."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(module, (example,), strict=False)
    return bytes(to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer)


def carry(module: fx.GraphModule, graph: Graph, plan: Plan) -> None:
    """Repeat the pair behind every operation that only moves quantized values, where integers read it on.

    Between two pairs of one range such an operation works on the integers; without them it is computed in float.

    Args:
        module: The graph's copy with the plan's pairs, changed in place.
        graph: The canonical graph.
        plan: The calibrated plan.
    """
    nodes = {n.name: n for n in module.graph.nodes}
    points = {site.tensor: point for point in plan.activations for site in point.sites}
    for op in graph.body():
        point = points.get(graph.root(op.name))
        if op.kind not in QUANTIZATION_AGNOSTIC or op.shape is None or op.name in points or point is None:
            continue
        source = nodes[graph.fx_name(op.name)]
        if source.all_input_nodes[0].target not in DEQUANTIZE:
            continue  # what layers in float read stays float
        put_behind(module, source, point, op.name, make_pair)
    module.graph.lint()
    module.recompile()


def slice_splits(module: fx.GraphModule) -> None:
    """Take every part of a split as a slice, which XNNPACK has for integers too; in place."""
    for node in list(module.graph.nodes):
        source = node.args[0] if node.target is operator.getitem else None
        if not isinstance(source, fx.Node) or source.target is not aten.split_with_sizes.default:
            continue
        arguments: Any = source.args
        part: Any = node.args[1]
        start = sum(arguments[1][:part])
        node.target = aten.slice.Tensor
        node.args = (arguments[0], arguments[2] if len(arguments) > 2 else 0, start, start + arguments[1][part])
    module.graph.eliminate_dead_code()
    module.recompile()


def double_by_copies(module: fx.GraphModule) -> None:
    """Double maps of integers by reshaping and joining copies, which XNNPACK has; in place.

    It has no nearest-neighbour resize: that would leave the delegate, in float. Along a new last dimension a copy lies
    beside every pixel, along a new dimension in front of that beside every row.
    """
    for node in list(module.graph.nodes):
        arguments: Any = node.args
        if node.target is not aten.upsample_nearest2d.vec or list(arguments[2] or ()) != [2.0, 2.0]:
            continue
        source, result = arguments[0], next(iter(node.users))
        # in float it may stay: joining float copies would only be slower
        if source.target not in DEQUANTIZE or result.target not in QUANTIZE:
            continue
        batch, channels, height, width = node.meta["val"].shape
        half, once = (batch, channels, height // 2), width // 2
        with module.graph.inserting_before(node):
            wide = _joined(module, source, result, [*half, once, 1], 4)
            high = _joined(module, wide, result, [*half, 1, width], 3)
            node.replace_all_uses_with(
                module.graph.call_function(aten.reshape.default, (high, [batch, channels, height, width]))
            )
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()


def _joined(module: fx.GraphModule, source: fx.Node, like: fx.Node, shape: list[int], dim: int) -> fx.Node:
    """A tensor in another shape, joined with itself; every result on the grid of a quantize node."""
    reshaped = _on_grid(module, aten.reshape.default, (source, shape), like)
    # the partitioner counts different operands (1.5.1): one tensor twice would be too few for its concat
    again = module.graph.call_function(PER_TENSOR[1], reshaped.args)
    return _on_grid(module, aten.cat.default, ([reshaped, again], dim), like)


def _on_grid(module: fx.GraphModule, target: Any, arguments: tuple[Any, ...], like: fx.Node) -> fx.Node:
    value = module.graph.call_function(target, arguments)
    quantized = module.graph.call_function(PER_TENSOR[0], (value, *like.args[1:]))
    return module.graph.call_function(PER_TENSOR[1], (quantized, *like.args[1:]))


def fold_weights(module: fx.GraphModule) -> None:
    """Store weights as integers, from which they are dequantized where they are read; in place.

    The exporter recognises a weight of an integer kernel by that form alone.
    """
    for node in list(module.graph.nodes):
        source = node.args[0] if node.target in QUANTIZE else None
        if not isinstance(source, fx.Node) or source.op != "get_attr":
            continue
        name = f"{str(source.target).replace('.', '_')}_int8"
        weight = module.get_parameter(str(source.target)).detach()
        arguments = [module.get_buffer(str(a.target)) if isinstance(a, fx.Node) else a for a in node.args[1:]]
        quantize: Any = node.target
        module.register_buffer(name, quantize(weight, *arguments))
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(module.graph.get_attr(name))
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()


def dequantize_for_each(module: fx.GraphModule) -> None:
    """Give every reader a dequantize node of its own, as the partitioner's patterns want it; in place."""
    for node in list(module.graph.nodes):
        if node.target not in DEQUANTIZE:
            continue
        # the first keeps the node that is there
        for reader in list(node.users)[1:]:
            with module.graph.inserting_after(node):
                own = module.graph.call_function(node.target, node.args, node.kwargs)
            reader.replace_input_with(node, own)
    module.graph.lint()
    module.recompile()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's warnings off the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
