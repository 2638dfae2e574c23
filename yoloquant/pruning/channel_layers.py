"""Layers, which read channels and make new ones, their norms, and products of two activations."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from ..graph.export_program import operation_name
from .channel_graph import Conv, MatMul
from .channel_labels import module_path, node_shape, spread, varies_along
from .channel_state import Channels


def batch_norm(channels: Channels, node: fx.Node) -> Any:
    """Labels of a norm's result, which are those of its input; its parameters have the same."""
    value = channels.value(node.args[0])
    labels = tuple(int(v) for v in channels.vector(value, 1))
    # weight, bias, running mean and variance; others of batch_norm's arguments are numbers
    for argument in node.args[1:5]:
        if channels.parameter(argument):
            channels.add_dim(channels.parameter(argument), 0, np.array(labels, np.int64))
    return value


def linear(channels: Channels, node: fx.Node) -> Any:
    """Labels of a linear layer's result, its channels last."""
    return _weighted(channels, node, axis=-1, transposed=False, groups=1)


def convolution(channels: Channels, node: fx.Node) -> Any:
    """Labels of a convolution's result, transposed or not."""
    groups: Any = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
    return _weighted(channels, node, axis=1, transposed=operation_name(node) == "conv_transpose2d", groups=int(groups))


def _weighted(channels: Channels, node: fx.Node, *, axis: int, transposed: bool, groups: int) -> Any:
    weight: Any = node.args[1]
    bias: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    value, shape, name = channels.value(node.args[0]), node_shape(node), channels.parameter(weight)
    assert shape is not None
    size = tuple(weight.meta["val"].shape)
    reads = channels.vector(value, axis)
    # a computed weight: there is no parameter to cut
    if not name:
        return channels.unknown(node)
    out_axis, in_axis = (1, 0) if transposed else (0, 1)
    # each output channel reads one input channel: removing either removes both
    depthwise = groups > 1 and groups == len(reads) == size[out_axis] and not transposed
    outputs = len(reads) if depthwise else shape[axis]
    owner = module_path(node)
    while owner:
        # the first layer that runs in a block reads the block's input; what is read later is the block's own
        channels.stream.setdefault(owner, tuple(int(v) for v in reads))
        owner = owner.rpartition(".")[0]
    if groups > 1 and not depthwise:
        channels.mark_unprunable(value)
        writes = np.zeros(outputs, np.int64)
    elif depthwise:
        writes = reads
        channels.add_dim(name, 0, reads)
    else:
        writes = channels.union.fresh(outputs)
        channels.add_dim(name, out_axis, writes)
        channels.add_dim(name, in_axis, reads)
    if channels.parameter(bias):
        channels.add_dim(channels.parameter(bias), 0, writes)
    # multiplications are counted per pair of channels, so that a cost can follow both widths
    kernel = int(np.prod(size[2:])) if len(size) > 2 else 1
    positions = int(np.prod(shape)) // outputs
    if transposed:
        # a transposed convolution multiplies once per input position, an ordinary one per output position
        positions = int(np.prod(value.shape)) // len(reads)
    if groups > 1 and not depthwise:
        kernel *= size[1] * outputs  # a constant: nothing of it can go
        channels.convs.append(Conv(name, positions, kernel, (0,), (0,)))
    else:
        channels.convs.append(Conv(name, positions, kernel, tuple(reads), tuple(writes), depthwise))
    return spread(writes, shape, axis)


def matmul(channels: Channels, node: fx.Node) -> Any:
    """Labels of a product of two activations."""
    a, b = channels.value(node.args[0]), channels.value(node.args[1])
    shape = node_shape(node)
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray) or shape is None or min(a.ndim, b.ndim) < 2:
        return channels.unknown(node)
    # the contracted axes: channels there meet one by one, pixels there only add up
    left, right = varies_along(a, a.ndim - 1), varies_along(b, b.ndim - 2)
    if a.shape[-1] == 1 and a.any() and b.any():  # one channel is left to contract over
        left = right = True
    if left and right:  # both sides contract over channels: the i-th ones meet
        pairs_a, pairs_b = a[..., 0, :].reshape(-1), np.swapaxes(b, -1, -2)[..., 0, :].reshape(-1)
        if pairs_a.shape != pairs_b.shape:
            return channels.unknown(node)
        channels.tie(pairs_a, pairs_b)
    elif left or right:
        return channels.unknown(node)
    result = np.zeros(shape, np.int64)
    if not left and a.any():
        result = channels.tie(result, np.broadcast_to(a[..., :, :1], shape))
    if not right and b.any():
        result = channels.tie(result, np.broadcast_to(b[..., :1, :], shape))
    if left and right:
        channels.matmuls.append(MatMul(int(shape[-1] * shape[-2]), tuple(int(v) for v in pairs_a)))
    else:
        along = a[..., :, 0].reshape(-1) if a.any() else b[..., 0, :].reshape(-1)
        rest = int(np.prod(shape)) // max(len(along), 1) * int(a.shape[-1])
        channels.matmuls.append(MatMul(rest, tuple(int(v) for v in along)))
    return result
