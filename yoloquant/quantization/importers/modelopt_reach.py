"""Which ranges of Ultralytics' native QAT belong to which tensor of the canonical graph.

Native QAT quantizes what a layer reads, so one tensor can have several ranges: one per layer that reads it, directly,
behind a split or as part of a concat. A plan has one range per tensor, or one for all tensors of a concat.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...graph.ops import QUANTIZATION_AGNOSTIC, OpKind, OpNode

if TYPE_CHECKING:
    from ...graph.trace import Graph
    from ..plan import Point

# What gives its reader a part of the values, or the largest: that reader has not seen all of them.
_SELECTING = frozenset(
    {
        *("getitem", "split_with_sizes", "unbind", "slice", "select", "narrow", "index_select"),
        *("max_pool2d", "adaptive_max_pool2d"),
    }
)


class Reach:
    """Finds the native ranges that reach a quantization point.

    A tensor is *covered* if a layer with a native range reads all of it (also as part of a concat that such a layer
    reads), or if every operation that reads a part of it has a native range for that part. What is not covered must
    be calibrated: the range of one part says nothing about the others.

    Args:
        graph: The canonical graph of the fused model.
        inputs: Largest magnitude of what a layer reads, by module path of the unfused model.
    """

    def __init__(self, graph: Graph, inputs: Mapping[str, np.float32]) -> None:
        self.graph, self.inputs = graph, inputs

    @cached_property
    def readers(self) -> dict[str, str]:
        """Layer whose range belongs to what an operation reads, by operation; only those that have one."""
        weighted = {_layer(op) for op in self.graph.ops.values() if op.weight}
        found = {}
        for op in self.graph.ops.values():
            layer = self._trained(_layer(op), weighted) if op.weight else op.module
            if layer in self.inputs and op.inputs:
                found[op.name] = layer
        return found

    def _trained(self, layer: str, weighted: set[str]) -> str:
        """The layer as it was trained; of parallel branches that fusing merged the one with the largest range."""
        block = f"{layer.rpartition('.')[0]}."
        if layer in self.inputs or sum(other.startswith(block) for other in weighted) > 1:
            return layer
        return max((p for p in self.inputs if p.startswith(block)), key=self.inputs.__getitem__, default=layer)

    def layers(self, members: Iterable[Point]) -> frozenset[str]:
        """Layers whose native ranges a range that these points share must span; empty if they do not cover them all."""
        sites = [site for point in members for site in point.sites]
        if not all(self._is_covered(s.tensor, s.consumers) for s in sites):
            return frozenset()
        # Where a site names its readers, theirs count; if none has a range, that of others which read the tensor does.
        return frozenset().union(*(self._reached(s.tensor, s.consumers) or self._reached(s.tensor) for s in sites))

    def _reached(self, tensor: str, consumers: tuple[str, ...] = ()) -> frozenset[str]:
        """Layers that read a tensor or a part of it."""
        found: frozenset[str] = frozenset()
        for name in consumers or self.graph.users[tensor]:
            if name in self.readers:
                found |= {self.readers[name]}
            if _passes(self.graph.ops[name]):
                found |= self._reached(name)
        return found

    def _is_covered(self, tensor: str, consumers: tuple[str, ...] = ()) -> bool:
        names = consumers or self.graph.users[tensor]
        each = (n in self.readers or (_passes(self.graph.ops[n]) and self._is_covered(n)) for n in names)
        return self._is_read_whole(tensor) or (bool(names) and all(each))

    def _is_read_whole(self, tensor: str) -> bool:
        """Whether a layer with a range reads every value of a tensor."""
        for name in self.graph.users[tensor]:
            op = self.graph.ops[name]
            onward = _passes(op) and op.name.rsplit(":", 2)[1] not in _SELECTING
            if name in self.readers or (onward and self._is_read_whole(name)):
                return True
        return False


def _layer(op: OpNode) -> str:
    return op.weight.rpartition(".")[0]


def _passes(op: OpNode) -> bool:
    return not op.tail and (op.kind in QUANTIZATION_AGNOSTIC or op.kind is OpKind.CONCAT)
