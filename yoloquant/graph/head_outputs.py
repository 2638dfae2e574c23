"""What becomes of a head's raw output: found by following it through the decode tail, never by names of layers.

A quantizer wants to know how much an error in a head's last convolution matters. That depends on the function behind
it: class logits pass a sigmoid, distances a softmax over bins and its mean (DFL), everything else counts as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import fx

from .export_program import operation_name
from .ops import QUANTIZATION_AGNOSTIC, OpKind, OpNode
from .trace import Graph

_WITH_VISIBILITY = 3
_ARITHMETIC = frozenset({OpKind.ADD, OpKind.MUL})


class Readout(str, Enum):
    """The function that turns a raw head output into what is detected."""

    CLASS_SIGMOID = "class_sigmoid"  # one probability per class and anchor
    CLASS_SOFTMAX = "class_softmax"  # classification: one distribution over the classes
    DISTRIBUTION = "distribution"  # softmax over bins and its mean: distances to the box's sides (DFL)
    KEYPOINTS = "keypoints"  # x, y and visibility of each keypoint; the last of them passes a sigmoid
    LINEAR = "linear"  # boxes without DFL, mask coefficients and prototypes, keypoints of x and y, angles


@dataclass(frozen=True)
class HeadOutput:
    """A raw head output.

    Attributes:
        op: The head's last convolution or linear layer.
        readout: What the decode does with its result.
        bins: Bins of one distance, for DISTRIBUTION; numbers of one keypoint, for KEYPOINTS; 1 otherwise.
    """

    op: OpNode
    readout: Readout
    bins: int = 1

    @property
    def keypoint(self) -> int:
        """Numbers of one keypoint, the last of which is its visibility; 0 where there is none."""
        return self.bins if self.readout is Readout.KEYPOINTS else 0


@dataclass(frozen=True)
class _Stretch:
    """A run of channels of one tensor."""

    name: str
    start: int
    length: int


def head_outputs(graph: Graph) -> tuple[HeadOutput, ...]:
    """Every raw head output with the function behind it, in execution order."""
    return tuple(_describe(graph, op) for op in graph.heads)


def _describe(graph: Graph, op: OpNode) -> HeadOutput:
    channels = op.shape[1] if op.shape is not None and len(op.shape) > 1 else 0
    count, numbers = graph.info.kpt_shape or (0, 0)
    # The decode takes keypoints apart by strided slices, which following a run of channels cannot see through: they are
    # told by name and shape.
    if op.branch == "keypoint" and numbers == _WITH_VISIBILITY and channels == count * numbers:
        return HeadOutput(op, Readout.KEYPOINTS, numbers)
    # Names of layers say nothing of custom heads; the operations behind a result do.
    ends = _followed(graph, _Stretch(op.name, 0, channels))
    units = [graph.ops[name] for name, whole in ends if whole and graph.ops[name].kind is OpKind.UNIT]
    # some of it is read by arithmetic directly, so errors count as they are
    if not units or len(units) != len(ends):
        return HeadOutput(op, Readout.LINEAR)
    # sigmoid and softmax are one kind of operation for plans; only the name of the operation tells them apart
    softmax = "softmax" in units[0].name.rsplit(":", 2)[1]
    if not softmax and channels == len(graph.info.names) and not any(_is_computed_with(graph, u) for u in units):
        return HeadOutput(op, Readout.CLASS_SIGMOID)
    if softmax and channels == len(graph.info.names) and len(op.shape or ()) == 2:
        return HeadOutput(op, Readout.CLASS_SOFTMAX)
    bins = _softmax_bins(graph, units[0]) if softmax else 1
    return (
        HeadOutput(op, Readout.DISTRIBUTION, bins)
        if bins > 1 and channels % bins == 0
        else HeadOutput(op, Readout.LINEAR)
    )


def _followed(graph: Graph, start: _Stretch) -> list[tuple[str, bool]]:
    """Operations that compute with a head's values, and whether they take all channels; moving ones are passed."""
    followed: list[tuple[str, bool]] = []
    # a stack and not a recursion: decode tails are chains of dozens of moves
    open_ends = [start]
    while open_ends:
        here = open_ends.pop()
        for name in graph.users[here.name]:
            op = graph.ops[name]
            if op.kind is not OpKind.CONCAT and op.kind not in QUANTIZATION_AGNOSTIC:
                followed.append((name, here.length == start.length))
                continue
            moved = _moved(graph.node(name), graph.node(here.name), here)
            if moved is not None:
                open_ends.append(_Stretch(name, *moved))
    return followed


def _moved(node: fx.Node, source: fx.Node, here: _Stretch) -> tuple[int, int] | None:
    """Where a run of channels lies in a moving operation's result; None if it is not in there."""
    operation = operation_name(node)
    axis = node.args[-1] if operation in {"cat", "split_with_sizes"} and isinstance(node.args[-1], int) else 0
    # levels are joined along the anchors, boxes and scores along the channels: only the latter moves a run of channels
    if operation == "cat" and axis == 1:
        before = 0
        for part in node.args[0]:  # type: ignore[union-attr]
            assert isinstance(part, fx.Node)
            if part is source:
                return before + here.start, here.length
            before += int(part.meta["val"].shape[1])
    if operation == "getitem" and _splits_channels(source):
        sizes, index = source.args[1], node.args[1]
        assert isinstance(sizes, (list, tuple)) and isinstance(index, int)
        begin = sum(int(s) for s in sizes[:index])  # type: ignore[arg-type, misc]
        low, high = max(begin, here.start), min(begin + int(sizes[index]), here.start + here.length)  # type: ignore[arg-type]
        return (low - begin, high - low) if low < high else None
    if operation in {"slice", "select", "narrow", "index_select", "unbind"}:
        return here.start, 0  # a part only, of whatever axis
    return here.start, here.length


def _splits_channels(node: fx.Node) -> bool:
    return operation_name(node) == "split_with_sizes" and len(node.args) > 2 and bool(node.args[2] == 1)


def _is_computed_with(graph: Graph, unit: OpNode) -> bool:
    """Whether arithmetic follows a sigmoid, as it does behind an angle; class scores are only moved and ranked."""
    open_ends = [unit.name]
    while open_ends:
        for name in graph.users[open_ends.pop()]:
            if graph.ops[name].kind in _ARITHMETIC:
                return True
            if graph.ops[name].kind in QUANTIZATION_AGNOSTIC:
                open_ends.append(name)
    return False


def _softmax_bins(graph: Graph, unit: OpNode) -> int:
    node = graph.node(unit.name)
    dim = int(node.args[1])  # type: ignore[arg-type]
    return int(node.meta["val"].shape[dim])
