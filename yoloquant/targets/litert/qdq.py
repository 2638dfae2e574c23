"""Quantize/dequantize pairs in the form that LiteRT's converter understands."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch import fx

from ...errors import TargetError
from ...graph.trace import QUANTIZATION_AGNOSTIC, Graph
from ...quantization.insert import put_behind
from ...quantization.plan import Plan, Point, PointKind
from ...quantization.qparams import fake_quantize

ops = torch.ops.quantized_decomposed
PER_TENSOR = (ops.quantize_per_tensor.default, ops.dequantize_per_tensor.default)
PER_CHANNEL = (ops.quantize_per_channel.default, ops.dequantize_per_channel.default)
QUANTIZE = frozenset({PER_TENSOR[0], PER_CHANNEL[0]})
DEQUANTIZE = frozenset({PER_TENSOR[1], PER_CHANNEL[1]})


def make_pair(module: fx.GraphModule, source: fx.Node, point: Point, place: str) -> fx.Node:
    """Node factory for ``quantization.insert``: one pair behind a tensor or a weight."""
    if point.kind is PointKind.WEIGHT:
        _snap(module, source, point)
    return _pair(module, source, point, place)


def _pair(module: fx.GraphModule, source: fx.Node, point: Point, place: str) -> fx.Node:
    assert point.params is not None  # insert() has checked that the plan is calibrated
    graph, spec = module.graph, point.spec
    stored = replace(spec, half_range=False)  # such weights are on their grid already; the converter knows -127..127
    limits = (stored.qmin, stored.qmax, torch.int8)
    if point.params.scale.ndim == 0:
        values = (float(point.params.scale), int(point.params.zero_point), *limits)
        quantized = graph.call_function(PER_TENSOR[0], (source, *values))
        with graph.inserting_after(quantized):
            return graph.call_function(PER_TENSOR[1], (quantized, *values))
    stem = "_qdq_" + "".join(c if c.isalnum() else "_" for c in place)
    module.register_buffer(f"{stem}_scale", torch.from_numpy(point.params.scale.copy()))
    module.register_buffer(f"{stem}_zero", torch.from_numpy(point.params.zero_point.astype("int64")))
    scale = graph.get_attr(f"{stem}_scale")
    with graph.inserting_after(scale):
        zero = graph.get_attr(f"{stem}_zero")
    with graph.inserting_after(zero):
        quantized = graph.call_function(PER_CHANNEL[0], (source, scale, zero, spec.axis, *limits))
    with graph.inserting_after(quantized):
        return graph.call_function(PER_CHANNEL[1], (quantized, scale, zero, spec.axis, *limits))


def _snap(module: fx.GraphModule, source: fx.Node, point: Point) -> None:
    """Move a weight onto its grid, so that the converter's own rounding cannot decide otherwise."""
    assert point.params is not None
    weight = module.get_parameter(str(source.target))
    weight.data = torch.from_numpy(fake_quantize(weight.data.numpy(), point.params, point.spec))


def carry(module: fx.GraphModule, graph: Graph, plan: Plan) -> None:
    """Repeat the pair behind every body operation that only passes quantized values on.

    The converter needs a pair at every float tensor; those operations have no point of their own in a plan.

    Args:
        module: The graph's copy with the plan's pairs, changed in place.
        graph: The canonical graph.
        plan: The calibrated plan.
    """
    nodes = {n.name: n for n in module.graph.nodes}
    points = {site.tensor: point for point in plan.activations for site in point.sites}
    for op in graph.body():
        if op.kind not in QUANTIZATION_AGNOSTIC or op.shape is None or op.name in points:
            continue
        point = points.get(graph.root(op.name))
        if point is None:
            raise TargetError(f"{op.name} passes on {graph.root(op.name)}, which the plan does not quantize")
        put_behind(module, nodes[graph.fx_name(op.name)], point, op.name, _pair)
    module.graph.lint()
    module.recompile()
