"""Which channels belong together, found by following every channel of a network through its traced graph.

Each output channel of each weighted layer gets a number. The numbers flow through the operations of the graph as the
channels do: pooling and activations keep them, a concat lines them up, a view or split moves them, an addition makes
two of them one. What ends with one number must be removed together. Whatever an operation does that is not known here
pins the channels that it reads, so that an unknown block costs pruning freedom and never correctness.

Torch-Pruning's dependency graph (arXiv 2301.12900) answers the same question from the autograd graph. It cannot follow
the attention of YOLO11 and later, and does not know that the halves of a ``chunk`` must stay equal.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
from torch import fx, nn

from ..graph.export_program import export_program, operation_name
from . import channel_layers, channel_moves
from .channel_graph import ChannelGraph
from .channel_labels import Labels, leaves, node_shape, spread, varies_along
from .channel_state import Channels

_ELEMENTWISE = frozenset(
    {"add", "sub", "mul", "div", "add_", "mul_", "sub_", "div_", "maximum", "minimum", "where", "pow"}
)
# Each maps a channel to itself. A softmax is in here since removing a channel from what it normalises is what pruning
# means.
_UNARY = frozenset(
    {
        *("silu", "silu_", "sigmoid", "relu", "relu_", "relu6", "hardtanh", "hardswish", "hardsigmoid", "gelu", "tanh"),
        *("leaky_relu", "leaky_relu_", "mish", "elu", "softplus", "exp", "log", "neg", "clamp", "softmax", "_softmax"),
        *("dropout", "contiguous", "clone", "alias", "detach", "to", "_to_copy", "lift_fresh_copy"),
    }
)
_SPATIAL = frozenset(
    {
        *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "upsample_nearest2d"),
        *("upsample_bilinear2d", "pad", "constant_pad_nd"),
    }
)


def trace_channels(module: nn.Module, imgsz: tuple[int, int], channels: int = 3) -> ChannelGraph:
    """Follow every channel of a live, unfused YOLO.

    Args:
        module: The model; left untouched.
        imgsz: Input height and width in pixels; multiplications are counted at this size.
        channels: Input channels.

    Returns:
        What belongs together.

    Raises:
        ModelError: The model cannot be traced.
    """
    # unfused, since channels are removed from a model that will be trained again
    program = export_program(raw_twin(module), channels, imgsz)
    state = Channels(module, program)
    for node in program.graph.nodes:
        if node.op == "placeholder":
            state.values[node] = state.zeros(node)
        elif node.op == "call_function":
            state.values[node] = _call(state, node)
        elif node.op == "output":
            for value in leaves(node.args):  # a feature map that layers read besides is no result of its own
                if not isinstance(value, fx.Node) or all(user.op == "output" for user in value.users):
                    state.mark_unprunable(state.value(value))
    return state.graph()


def raw_twin(module: nn.Module) -> nn.Module:
    """A copy on the CPU that answers with the raw outputs of every branch of its head, BatchNorm in evaluation mode."""
    twin: Any = deepcopy(module).cpu().float().eval()
    # losses hold buffers and may not be traceable; no forward needs them
    if hasattr(twin, "criterion"):
        twin.criterion = None
    # a head in training mode skips its decode, whose reshapes and anchors would hide the channels
    for m in twin.model[-1].modules():
        m.training = not isinstance(m, (nn.BatchNorm2d, nn.Dropout))
    for m in twin.modules():
        # an operation in place would give its input labels that only its result should have
        if hasattr(m, "inplace"):
            m.inplace = False
    return twin  # type: ignore[no-any-return]


def _call(channels: Channels, node: fx.Node) -> Any:
    short = operation_name(node)
    # in-place twins and overloads share a name here: what counts is what happens to channels
    known = _HANDLERS.get(short)
    return channels.unknown(node) if known is None else known(channels, node)


def _same(channels: Channels, node: fx.Node) -> Any:
    value = channels.value(node.args[0])
    shape = node_shape(node)
    return value if shape is None or value.shape == shape else np.broadcast_to(value, shape)


def _elementwise(channels: Channels, node: fx.Node) -> Any:
    shape = node_shape(node)
    if shape is None:
        return None
    result = np.zeros(shape, np.int64)
    operands: list[Labels] = []
    for argument in node.args:
        value = channels.value(argument)
        if not isinstance(value, np.ndarray):
            # a number, or a value without channels such as a size: it cannot say what belongs together
            continue
        if channels.parameter(argument) and value.size > 1 and not value.any():
            value = channels.own(argument, value.shape)
        result = channels.tie(result, np.broadcast_to(value, shape))
        operands.append(value)
    for value in operands:
        _mark_unmatched(channels, result, value)
    return result


def _mark_unmatched(channels: Channels, result: Labels, operand: Labels) -> None:
    """An operand that is as wide as the channels it meets, but whose own are not known, keeps them as they are."""
    if operand.all():
        return
    # broadcasting lines shapes up at their last axes
    lead = result.ndim - operand.ndim
    if any(size > 1 and varies_along(result, lead + i) for i, size in enumerate(operand.shape)):
        channels.mark_unprunable(result[np.broadcast_to(operand == 0, result.shape)])


def _spatial(channels: Channels, node: fx.Node) -> Any:
    value, shape = channels.value(node.args[0]), node_shape(node)
    assert shape is not None
    # a pooling that changes the number of channels is none that this table knows
    if value.ndim != len(shape) or value.shape[1] != shape[1]:
        return channels.unknown(node)
    return spread(channels.vector(value, 1), shape, 1)


def _mean(channels: Channels, node: fx.Node) -> Any:
    value, shape = channels.value(node.args[0]), node_shape(node)
    if shape is None or value.ndim != 4 or len(shape) < 2 or shape[1] != value.shape[1]:
        return channels.unknown(node)
    return spread(channels.vector(value, 1), shape, 1)


def _getitem(channels: Channels, node: fx.Node) -> Any:
    value = channels.value(node.args[0])
    index: Any = node.args[1]
    return value[index] if isinstance(value, (list, tuple)) else channels.unknown(node)


def _concat(channels: Channels, node: fx.Node) -> Any:
    parts: Any = channels.value(node.args[0])
    dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    result = np.concatenate(parts, axis=int(dim))
    if result.ndim < 2:
        return channels.unknown(node)
    # along the channel axis a concat only lines them up, which the labels have just done
    if int(dim) % result.ndim == 1 or not result.any():
        return result
    # along another axis the same channels lie side by side: they are one
    labels = [channels.vector(p, 1) for p in parts]
    joined = np.zeros_like(labels[0])
    for vector in labels:
        joined = channels.tie(joined, vector)
    for vector in labels:
        channels.mark_unprunable(joined[vector == 0])
    return spread(joined, result.shape, 1)


_HANDLERS: dict[str, Callable[[Channels, fx.Node], Any]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_UNARY, _same),
    **dict.fromkeys(_SPATIAL, _spatial),
    **dict.fromkeys(channel_moves.MOVES, channel_moves.move),
    "mean": _mean,
    "getitem": _getitem,
    "cat": _concat,
    "batch_norm": channel_layers.batch_norm,
    "linear": channel_layers.linear,
    "conv2d": channel_layers.convolution,
    "conv_transpose2d": channel_layers.convolution,
    "matmul": channel_layers.matmul,
    "bmm": channel_layers.matmul,
}
