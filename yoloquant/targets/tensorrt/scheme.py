"""Where TensorRT wants Q/DQ pairs: on what convolutions, residual Adds and Concats read, and nowhere else.

TensorRT fuses a convolution with its bias, its activation and the Add behind it, so a pair belongs only where a fused
block's result is read (NVIDIA, TensorRT developer guide, Q/DQ placement recommendations). Operations that only move
values ride on the grid of what they move. Upsampling and max pooling get the pair once more behind them, with the same
scale: a convolution behind bare upsampling runs in float, and so did one of yolo11n's three poolings (measured with
TensorRT-RTX 1.7.1; with the pairs its engine has 228 instead of 234 layers).

The head's last convolutions are quantized too: inputs and weights, while their results and all that decodes them stay
float. Measured by ``tools/compare_heads.py`` on yolo11n at 640, 128 COCO val2017 images: fidelity 0.950 as it is; box
branches in float change it by -0.0001 [-0.0019, +0.0017], score branches by +0.0014 [-0.0019, +0.0062], both by +0.0012
[-0.0026, +0.0060] (95 % intervals, paired by image), so leaving them in float buys nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from ...graph.ops import OpKind, OpNode
from ...quantization.plan import Site
from ...quantization.scheme import SYMMETRIC, Placement, Scheme, concat_ties

if TYPE_CHECKING:
    from ...graph.trace import Graph

PLANNED = frozenset({OpKind.CONV, OpKind.LINEAR})  # a quantized ConvTranspose runs in float


def place(graph: Graph) -> Placement:
    """Find the edges that TensorRT reads in Int8.

    Args:
        graph: The canonical graph.

    Returns:
        A site behind every tensor that such an edge reads: before its Split or Slice where all that they feed is
        quantized, behind them where only a part is, and always again behind upsampling and max pooling.
    """
    return _Placer(graph).run()


class _Placer:
    """One walk over a graph in execution order; what readers want is remembered."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        # asked for every edge, by recursion: without memory the time could grow exponentially with nested concats
        self.wanted = lru_cache(maxsize=None)(self._wanted)

    def run(self) -> Placement:
        carried: set[str] = set()  # operations that already pass quantized values on
        sites: list[tuple[Site, str]] = []
        for op in self.graph.body():
            users = self.graph.users[op.name]
            moving = {u for u in users if _moves(self.graph.ops[u])}
            if op.name in carried:
                carried |= moving
            elif op.shape is not None:  # of several tensors each is looked at by itself
                reasons = {u: why for u in users if (why := self.wanted(op.name, u))}
                carried |= moving & reasons.keys()
                if reasons:
                    consumers = () if len(reasons) == len(users) else tuple(reasons)
                    sites.append((Site(op.name, consumers), next(iter(reasons.values()))))
        weighted = tuple(op.name for op in self.graph.body() if _planned(op))
        return Placement(tuple(sites), concat_ties(self.graph), weighted)

    def _wanted(self, source: str, reader: str) -> str:
        """Why an edge is to be read in Int8; empty if it is not."""
        op = self.graph.ops[reader]
        if op.tail:
            return ""
        if _planned(op):
            return f"operand of an int8 {op.kind.value}"
        if op.kind is OpKind.ADD:
            return "identity of a residual Add" if self._is_identity(source, op) else ""
        through = [self.wanted(op.name, user) for user in self.graph.users[op.name]]
        if op.kind is OpKind.CONCAT:
            return "concat input, one range with its result" if any(through) else ""
        if _is_restated(op):
            return next(filter(None, through), "")
        # all of them: a grid in front of a split that a float layer also reads would round what that layer sees
        return through[0] if _moves(op) and through and all(through) else ""

    def _is_identity(self, source: str, add: OpNode) -> bool:
        """Whether an Add's operand is the skip connection of a block with a quantized operation in it."""
        root = self.graph.root(source)
        others = [self.graph.root(i) for i in add.inputs if i != source]
        return any(root in self.graph.ancestors(other) and self._block_is_planned(root, other) for other in others)

    def _block_is_planned(self, start: str, end: str) -> bool:
        names = (self.graph.ancestors(end) | {end}) - self.graph.ancestors(start)
        return any(_planned(self.graph.ops[n]) and start in self.graph.ancestors(n) for n in names)


def _planned(op: OpNode) -> bool:
    return op.kind in PLANNED and not op.tail


def _moves(op: OpNode) -> bool:
    """Whether the engine takes an operation's result to lie on its input's grid, without being told again."""
    return op.kind is OpKind.PASS and not _is_restated(op)


def _is_restated(op: OpNode) -> bool:
    return op.kind is OpKind.POOL_MAX or op.name.rsplit(":", 2)[1].startswith("upsample")


SCHEME = Scheme(
    name="tensorrt",
    place=place,
    activation=SYMMETRIC,
    unit_fixed=False,
    description="symmetric int8 operands of convolutions, residual identities and tied concats; activations stay fused",
)
