"""A graph that ends at the head's raw outputs: what a plan's errors are compared at, before the decode hides them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from ..graph.canonical_graph import end_at
from ..graph.trace import Graph, OpNode
from .simulate import MODULE_PREFIX


def end_at_heads(graph: Graph, module: fx.GraphModule, heads: Sequence[OpNode] | None = None) -> fx.GraphModule:
    """Let a module return its raw head outputs, quantized where they are; the decode behind them is removed.

    Args:
        graph: The canonical graph.
        module: A copy of its module, float or simulated; changed in place.
        heads: Which of ``graph.heads``; what only the others need is removed too. All if None.

    Returns:
        The module. It returns a tuple in the order of the heads.
    """
    # heads keep their names in copies, and so does the pair behind them: found without counting outputs
    end_at(module, [_quantized(graph.node(op.name, module)) for op in (graph.heads if heads is None else heads)])
    return module


def _quantized(node: fx.Node) -> fx.Node:
    target = f"{MODULE_PREFIX}{node.name}"
    return next((u for u in node.users if u.op == "call_module" and u.target == target), node)
