"""What LiteRT wants quantized: every float tensor of the body.

The head's last convolutions and their results too, or the body would not be integer. What that costs was measured by
``tools/compare_heads.py`` (yolo11n at 640, 128 COCO val2017 images, simulated): with float box branches fidelity would
be 0.0055 [0.0016, 0.0095] higher than 0.958, with float score branches the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...quantization.scheme import Placement, Scheme, complete
from .global_pools import is_average, is_global

if TYPE_CHECKING:
    from ...graph.trace import Graph


def place(graph: Graph) -> Placement:
    """Every float tensor; an average pool shares the range of what it reads, as its integer operator demands.

    One over the whole map does not, see ``global_pools``.
    """
    placement = complete(graph)
    averages = (op for op in graph.body() if is_average(op) and not is_global(graph, op))
    pools = tuple((op.inputs[0], op.name) for op in averages)
    return replace(placement, ties=placement.ties + pools)


SCHEME = Scheme(
    name="litert",
    place=place,
    description="every tensor of the body in int8, concats tied, sigmoid and softmax at 1/256; no float operator left",
)
