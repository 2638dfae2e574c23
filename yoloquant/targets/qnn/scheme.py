"""What Qualcomm's provider for ONNX Runtime (2.7) wants quantized: everything, each operation by itself.

It takes an operation as integer only between a dequantization of each operand and a quantization of the result, also
where values are only moved: in a chain of reshapes without pairs between them, all but the ends would be computed in
float16. So the grid of what is moved is written again behind every move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...graph.ops import QUANTIZATION_AGNOSTIC
from ...quantization.plan import Site
from ...quantization.scheme import Placement, Scheme, complete

if TYPE_CHECKING:
    from ...graph.trace import Graph


def place(graph: Graph) -> Placement:
    """A pair behind every operation of the body, moves included."""
    placed = complete(graph)
    moved = tuple(
        (Site(op.name), "moves values only: keeps their range")
        for op in graph.body()
        if op.kind in QUANTIZATION_AGNOSTIC and op.shape is not None
    )
    order = {name: index for index, name in enumerate(graph.ops)}
    sites = sorted((*placed.sites, *moved), key=lambda entry: order[entry[0].tensor])
    return Placement(tuple(sites), placed.ties, placed.weighted)


SCHEME = Scheme(
    name="qnn",
    place=place,
    description="uint8 around every operation up to the raw heads, int8 weights per channel",
)
