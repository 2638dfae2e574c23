"""A graph that ends at the head's raw outputs: what a plan's errors are compared at, before the decode hides them."""

from __future__ import annotations

from torch import fx

from ..graph.trace import Graph
from .simulate import MODULE_PREFIX


def end_at_heads(graph: Graph, module: fx.GraphModule) -> fx.GraphModule:
    """Let a module return its raw head outputs, quantized where they are; the decode behind them is removed.

    Args:
        graph: The canonical graph.
        module: A copy of its module, float or simulated; changed in place.

    Returns:
        The module. It returns a tuple in the order of ``graph.heads``.
    """
    nodes = {n.name: n for n in module.graph.nodes}
    # heads keep their names in copies, and so does the pair behind them: found without counting outputs
    wanted = [_quantized(nodes[graph.fx_name(op.name)]) for op in graph.heads]
    (result,) = (n for n in module.graph.nodes if n.op == "output")
    result.args = (tuple(wanted),)
    module.graph.set_codegen(fx.graph.CodeGen())  # the exported one would restore the structure of the old outputs
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _quantized(node: fx.Node) -> fx.Node:
    target = f"{MODULE_PREFIX}{node.name}"
    return next((u for u in node.users if u.op == "call_module" and u.target == target), node)
