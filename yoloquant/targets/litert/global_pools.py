"""Averages over a whole map: written as MEAN, which may have a range of its own.

LiteRT's integer AVERAGE_POOL_2D gives its result the range of what it reads, where single pixels are many times as
large as their mean: a classifier's pooled vector would be left with a few dozen steps. MEAN divides and rounds once,
to a scale of its own, in XNNPACK and in the built-in kernels alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import fx

    from ...graph.ops import OpNode
    from ...graph.trace import Graph

_MAP = 4
"""Axes of a batch of maps: image, channel, row, column."""


def is_average(op: OpNode) -> bool:
    """Whether an operation is an average pool, of whatever size."""
    return ":avg_pool2d:" in op.name


def is_global(graph: Graph, op: OpNode) -> bool:
    """Whether an operation averages each channel of what it reads to one pixel."""
    source = graph.ops[op.inputs[0]].shape if is_average(op) else None
    if source is None or len(source) != _MAP:
        return False
    kernel = graph.node(op.name).args[1]
    sides = tuple(kernel) if isinstance(kernel, (list, tuple)) else (kernel,)
    # a smaller window that happens to leave one pixel reads a part of the map
    return sides * (2 // len(sides)) == tuple(source[2:])


def write_as_means(module: fx.GraphModule, graph: Graph) -> None:
    """Turn every average over a whole map into a mean over its rows and columns, in place; names stay.

    Args:
        module: A copy of the graph's module.
        graph: The canonical graph.
    """
    import torch  # listing a scheme's rules does without

    wanted = {graph.fx_name(op.name) for op in graph.body() if is_global(graph, op)}
    for node in module.graph.nodes:
        if node.name in wanted:
            node.target = torch.ops.aten.mean.dim
            node.args, node.kwargs = (node.args[0], [2, 3], True), {}
    module.recompile()
