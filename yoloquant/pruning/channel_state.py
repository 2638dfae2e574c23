"""What is known of the channels while a graph is walked: labels of every value, what is one, what must stay."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from torch import fx, nn

from ..graph.export_program import operation_name
from .channel_graph import ChannelDim, ChannelGraph, Conv, Equal, MatMul
from .channel_labels import Labels, Union, arrays, map_tensors, module_path

logger = logging.getLogger(__name__)


class Channels:
    """Labels of everything seen so far.

    Args:
        module: The live model.
        program: What ``torch.export`` made of it.
    """

    def __init__(self, module: nn.Module, program: Any) -> None:
        self.module = module
        self.union = Union()
        self.unprunable: set[int] = set()
        self.dims: list[ChannelDim] = []
        self.equal: list[Equal] = []
        self.convs: list[Conv] = []
        self.matmuls: list[MatMul] = []
        self.values: dict[fx.Node, Any] = {}
        self.stream: dict[str, tuple[int, ...]] = {}  # what the first layer of each block reads
        # parameters of layers that run twice come twice, and must get the same labels
        self.parameter_labels: dict[tuple[str, int], Labels] = {}
        layers: Any = getattr(module, "model", ())
        self.head = f"model.{len(layers) - 1}."  # what it reshapes are results, which stay anyway
        # torch.export lifts parameters to inputs: names are found in its signature, not in the nodes
        signature = program.graph_signature
        self.parameters: dict[str, str] = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }

    def graph(self) -> ChannelGraph:
        """What belongs together, every label resolved."""
        find = self.union.resolve
        return ChannelGraph(
            # once each: a layer that runs twice has noted its axes twice
            list(dict.fromkeys(ChannelDim(d.parameter, d.axis, find(d.labels)) for d in self.dims)),
            [Equal(e.module, tuple(find(p) for p in e.parts), e.kind) for e in self.equal],
            [Conv(c.parameter, c.positions, c.kernel, find(c.reads), find(c.writes), c.depthwise) for c in self.convs],
            [MatMul(m.factor, find(m.reads)) for m in self.matmuls],
            # only now: a label may have been marked before it was joined with others
            frozenset(find(self.unprunable)) - {0},
        )

    def value(self, argument: Any) -> Any:
        """Labels of an argument, or of each in a nested one; anything else as it is."""
        if isinstance(argument, fx.Node):
            return self.values.get(argument)
        if isinstance(argument, (list, tuple)):
            return [self.value(a) for a in argument]
        return argument

    def parameter(self, argument: Any) -> str:
        """Full name of the parameter behind an argument, or nothing."""
        return self.parameters.get(argument.name, "") if isinstance(argument, fx.Node) else ""

    def mark_unprunable(self, value: Any) -> None:
        """Note that all channels of a nested value must stay."""
        for array in arrays(value):
            self.unprunable.update(int(v) for v in np.unique(array) if v)

    def zeros(self, node: fx.Node) -> Any:
        """No channels, in the shape of a node's result."""
        return map_tensors(node.meta.get("val"), lambda t: np.zeros(tuple(t.shape), np.int64))

    def unknown(self, node: fx.Node) -> Any:
        """Labels of the result of an operation that is not known here: none, and what it reads must stay."""
        # what reads no channels, such as arithmetic on sizes, costs no freedom
        if any(bool(a.any()) for a in arrays(self.value(node.args))):
            logger.debug("%s at %s is not known: its channels stay", operation_name(node), module_path(node))
            self.mark_unprunable(self.value(node.args))
        return self.zeros(node)

    def own(self, argument: Any, shape: tuple[int, ...]) -> Labels:
        """Labels of a parameter that takes part in arithmetic: its longest axis carries channels."""
        # shapes like (channels, 1, 1) are how such parameters are broadcast
        axis = int(np.argmax(shape))
        labels = self.union.fresh(shape[axis])
        self.dims.append(ChannelDim(self.parameter(argument), axis, tuple(labels)))
        self.values[argument] = value = np.broadcast_to(
            labels.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape
        ).copy()
        return value

    def tie(self, a: Labels, b: Labels) -> Labels:
        """Make two arrays' channels one, place by place, and return what stands for both."""
        both = (a != 0) & (b != 0)
        if both.any():
            # tensors repeat each label over all their pixels: joining every pair once is enough
            pairs = np.unique(np.stack([a[both], b[both]]), axis=1)
            for x, y in pairs.T:
                self.union.join(int(x), int(y))
        return np.where(a != 0, a, b)

    def vector(self, value: Labels, axis: int) -> Labels:
        """Labels along an axis, which must not depend on where one looks; else they must stay."""
        moved = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)
        first = moved[:, 0]
        # for instance channels that a reshape has mixed into pixels
        if (moved != first[:, None]).any():
            self.mark_unprunable(value)
        return np.asarray(first)

    def add_dim(self, name: str, axis: int, labels: Labels) -> None:
        """Note what channels an axis of a parameter holds."""
        known = self.parameter_labels.setdefault((name, axis), labels)
        if known is not labels:  # a layer that runs twice: what it reads and makes is the same both times
            self.tie(known, labels)
            # a channel that meets none in the other use could only be removed from one of the two
            self.mark_unprunable(np.where(known == 0, labels, np.where(labels == 0, known, 0)))
        self.dims.append(ChannelDim(name, axis, tuple(int(v) for v in labels)))

    def attention_of(self, node: fx.Node) -> Any:
        """The attention block whose code this is, if it is one whose numbers can be changed."""
        owner = self.block(node)
        return owner if hasattr(owner, "num_heads") and hasattr(owner, "head_dim") else None

    def block(self, node: fx.Node) -> Any:
        """The innermost module whose code a node is."""
        path = module_path(node)
        return self.module.get_submodule(path) if path else self.module

    def read_by(self, path: str) -> tuple[int, ...]:
        """Channels that a block, or the one around it, reads first."""
        while path and path not in self.stream:
            path = path.rpartition(".")[0]
        return self.stream.get(path, ())
