"""Put a plan's points into a graph. One walk serves the simulation and every export.

The walk decides *where* a quantize-dequantize pair stands; a factory decides *what* stands there: a fake-quantize
module, a marker for ONNX, or the pair of operations that LiteRT's converter understands.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import fx, nn

from ..errors import PlanError
from ..graph.trace import Graph
from .plan import Plan, Point
from .scheme import weight_point_name


class NodeFactory(Protocol):
    """Creates the node that stands for one point at one place."""

    def __call__(self, module: fx.GraphModule, source: fx.Node, point: Point, place: str) -> fx.Node:
        """Create a node behind ``source`` (the insertion point is set).

        Args:
            module: The graph module being rewritten.
            source: The float tensor.
            point: Its point, with a range.
            place: Unique identifier of the place: the name of the quantized tensor or of the weight point.

        Returns:
            The node that carries the quantized-dequantized value.
        """
        ...


def copy_module(graph: Graph) -> fx.GraphModule:
    """A copy of the graph's module that shares no parameter with it."""
    return copy.deepcopy(graph.module)


def insert(graph: Graph, plan: Plan, make: NodeFactory, *, bias: dict[str, np.ndarray] | None = None) -> fx.GraphModule:
    """A copy of the graph in which every point of a calibrated plan is realised.

    Args:
        graph: The canonical graph.
        plan: A plan that was derived from it, with ranges.
        make: What to put at each place.
        bias: Corrections to add to biases, by path of the bias parameter's module (float32, (channels,)).

    Returns:
        The rewritten module.

    Raises:
        PlanError: The plan has no ranges or names tensors that the graph does not have.
    """
    plan.require_calibrated()
    # before the copy: a plan of another model fails by the name of its first point
    check_fits(graph, plan)
    module = copy_module(graph)
    add_bias(module, bias or {})
    nodes = {n.name: n for n in module.graph.nodes}
    layers: dict[str, list[fx.Node]] = defaultdict(list)  # a layer that runs twice reads its weight twice
    for op in graph.ops.values():
        if op.weight:
            layers[weight_point_name(op)].append(nodes[graph.fx_name(op.name)])
    for point in plan.weights:
        source = layers[point.name][0].args[1]
        assert isinstance(source, fx.Node)
        with module.graph.inserting_before(layers[point.name][0]):
            quantized = make(module, source, point, point.name)
        # one node for all readers: two would be two parameters for a runtime
        for reader in layers[point.name]:
            reader.update_arg(1, quantized)
    for point in plan.activations:
        for site in point.sites:
            readers = [nodes[graph.fx_name(c)] for c in site.consumers]
            put_behind(module, nodes[graph.fx_name(site.tensor)], point, site.tensor, make, readers)
    module.graph.lint()
    module.recompile()
    return module


def put_behind(
    module: fx.GraphModule,
    source: fx.Node,
    point: Point,
    place: str,
    make: NodeFactory,
    readers: Sequence[fx.Node] = (),
) -> None:
    """Realise a point behind a node, for some of its readers or for all of them.

    Args:
        module: A graph's copy, changed in place.
        source: The node.
        point: A point with ranges.
        place: Name of the place, for what is made.
        make: What to put there.
        readers: Who reads it from then on; everybody who reads the node if empty.
    """
    # taken before the new node, itself a user, is put in
    chosen = list(readers or source.users)
    with module.graph.inserting_after(source):
        made = make(module, source, point, place)
    for reader in chosen:
        reader.replace_input_with(source, made)


def add_bias(module: nn.Module, corrections: Mapping[str, np.ndarray]) -> None:
    """Add corrections to the biases of convolutions and linear layers, by path, in place.

    Raises:
        PlanError: A layer is not there, has no bias, or has another number of channels.
    """
    parameters = dict(module.named_parameters())
    for path, delta in corrections.items():
        bias = parameters.get(f"{path}.bias")
        if bias is None or bias.shape != np.shape(delta):
            have = "no bias" if bias is None else f"a bias of shape {tuple(bias.shape)}"
            raise PlanError(f"a bias correction of shape {np.shape(delta)} is for {path}, which has {have}")
        bias.data = bias.data + torch.from_numpy(np.asarray(delta, np.float32)).to(bias.device)


def check_fits(graph: Graph, plan: Plan) -> None:
    """Raise PlanError unless the plan was derived from such a graph."""
    if plan.imgsz != graph.info.imgsz:
        raise PlanError(f"the plan is for imgsz {plan.imgsz}, the model was traced at {graph.info.imgsz}")
    weights = {weight_point_name(op) for op in graph.ops.values() if op.weight}
    known = weights | set(graph.ops)
    named = [p.name for p in plan.points] + [t for p in plan.points for s in p.sites for t in (s.tensor, *s.consumers)]
    unknown = [n for n in named if n not in known]
    if unknown:
        raise PlanError(
            f"the plan names {unknown[0]}, which this model does not have ({len(unknown)} such names); "
            "it was made for another model"
        )
