"""What ExecuTorch's XNNPACK delegate wants quantized.

Its partitioner (1.5.1) takes an operation as integer only between a dequantization of each operand and a quantization
of the result, and knows no integer sigmoid, softmax or product of computed tensors: a SiLU is computed in float between
two integers, and so is the inside of an attention. Both cost a conversion that a prescribed 1/256 for the sigmoid would
cost as well, and lose nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...graph.ops import OpKind
from ...quantization.scheme import Placement, Scheme, complete

if TYPE_CHECKING:
    from ...graph.trace import Graph, OpNode

# Sigmoid and softmax (UNIT) and products of computed tensors.
_FLOAT = frozenset({OpKind.UNIT, OpKind.MATMUL})


def place(graph: Graph) -> Placement:
    """Every float tensor but what only float operations read or write."""
    placed = complete(graph)
    kept = tuple((site, why) for site, why in placed.sites if _integer(graph, graph.ops[site.tensor]))
    return Placement(kept, placed.ties, placed.weighted)


def _integer(graph: Graph, op: OpNode) -> bool:
    """Whether an integer operation writes a tensor, or reads it."""
    if op.kind in _FLOAT:
        return _read_as_integer(graph, op.name)
    return op.kind is not OpKind.MUL or _read_as_integer(graph, op.name)


def _read_as_integer(graph: Graph, name: str) -> bool:
    """Whether a convolution, an addition or a concatenation reads a tensor, operations that move values between."""
    for user in graph.users[name]:
        op = graph.ops[user]
        if op.tail or op.kind in _FLOAT or op.kind is OpKind.MUL:
            continue
        if op.shape is None or op.kind is OpKind.PASS or op.kind is OpKind.POOL_MAX:
            if _read_as_integer(graph, user):
                return True
            continue
        return True
    return False


SCHEME = Scheme(
    name="executorch",
    place=place,
    description="int8 around convolutions, additions and concats; SiLU and the inside of attention in float",
)
"""The ranges are those of LiteRT's scheme wherever both have a point."""
