"""Operations that only move channels: views, slices and splits, some of which code takes apart by written numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from ..graph.export_program import operation_name
from .channel_graph import Equal, Split
from .channel_labels import Labels, module_path, split_dimension, varies_along
from .channel_state import Channels

MOVES = frozenset(
    {
        *("reshape", "view", "_unsafe_view", "flatten", "permute", "transpose", "t", "movedim", "unsqueeze", "squeeze"),
        *("expand", "slice", "select", "narrow", "unbind", "unflatten", "split", "split_with_sizes", "chunk"),
    }
)
_SPLITS = frozenset({"split", "split_with_sizes", "chunk"})


def move(channels: Channels, node: fx.Node) -> Any:
    """Labels of a moved value; what the move says of sizes is noted."""
    source: Any = node.args[0]
    value = channels.value(source)
    if not isinstance(value, np.ndarray):
        return channels.zeros(node)
    # a parameter of its own, such as a gain: its entries are channels that only arithmetic will tell
    if channels.parameter(source) and not value.any() and value.size > 1:
        value = channels.own(source, value.shape)
    # the labels go through the very operation
    arguments = [torch.from_numpy(np.array(value)), *node.args[1:]]
    result: Any = node.target(*arguments, **node.kwargs)  # type: ignore[operator]
    moved = [r.numpy() for r in result] if isinstance(result, (list, tuple)) else result.numpy()
    _check_move(channels, node, operation_name(node), value, moved)
    return moved


def _check_move(channels: Channels, node: fx.Node, short: str, before: Labels, after: Any) -> None:
    """Note splits into equal parts; keep what code takes apart by numbers that pruning would change."""
    if short in {"view", "reshape", "unflatten", "_unsafe_view"} and _names_sizes(channels, node, after):
        channels.mark_unprunable(before)
        channels.mark_unprunable(np.array(channels.read_by(module_path(node)), np.int64))
    if not before.any():
        return
    if short in _SPLITS:
        _check_split(channels, node, short, before, after)
    # code that takes a part by written positions would take other channels once some are gone
    elif short in {"slice", "select", "narrow"} and after.size < before.size:
        if set(np.unique(after)) != set(np.unique(before)):
            channels.mark_unprunable(before)
    elif short in {"view", "reshape", "unflatten", "_unsafe_view", "flatten"}:
        _check_view(channels, node, before, after)


def _check_split(channels: Channels, node: fx.Node, short: str, before: Labels, after: list[Labels]) -> None:
    heads, dim = channels.attention_of(node), split_dimension(node) % before.ndim
    if dim == 1 and before.ndim == 4 and len({p.shape[1] for p in after}) == 1:
        parts = tuple(tuple(int(v) for v in channels.vector(p, 1)) for p in after)
        channels.equal.append(Equal(module_path(node), parts))
        # Ultralytics' CSP blocks split by ``self.c``, which can follow; ``chunk`` names no size at all
        width = getattr(channels.block(node), "c", None)
        if not before.all() or (short != "chunk" and width != after[0].shape[1]):
            channels.mark_unprunable(
                before
            )  # a part that is not known, or a size that is written down where nobody finds it
    elif heads is not None and dim == 2 and before.ndim == 4 and len(after) == 3:
        _attention(channels, module_path(node), heads, [p[0, :, :, 0] for p in after])
    elif varies_along(before, dim):
        channels.mark_unprunable(before)


def _attention(channels: Channels, path: str, owner: Any, qkv: list[Labels]) -> None:
    """Every head keeps as many channels as the others.

    Args:
        channels: What is known so far.
        path: Of the attention block.
        owner: The block.
        qkv: Labels (heads, channels) of query, key and value.
    """
    query, value = ([tuple(int(v) for v in head) for head in part] for part in (qkv[0], qkv[2]))
    if hasattr(owner, "key_dim"):
        channels.equal.append(Equal(path, tuple(query), Split.KEY))
        # its values are viewed in the shape of its input: they must stay as many
        stream = np.array(channels.stream.get(path, ()), np.int64)
        # as many values as the block reads, or its residual sum could not be formed
        if len(stream) != sum(len(v) for v in value):
            channels.mark_unprunable(np.array(value))
            return
        value += [tuple(int(v) for v in part) for part in np.split(stream, len(value))]
        channels.equal.append(Equal(path, tuple(value), Split.HEAD))
    else:
        channels.equal.append(Equal(path, tuple(query + value), Split.HEAD))


def _check_view(channels: Channels, node: fx.Node, before: Labels, after: Labels) -> None:
    axes = [i for i in range(after.ndim) if varies_along(after, i)]
    if len(axes) <= 1 and len([i for i in range(before.ndim) if varies_along(before, i)]) <= 1:
        return
    heads = channels.attention_of(node)
    if heads is None:
        channels.mark_unprunable(before)


def _names_sizes(channels: Channels, node: fx.Node, after: Labels) -> bool:
    """Whether code that is not known reshapes to a number of channels, be it its own or that of its input."""
    in_head = f"{module_path(node)}.".startswith(channels.head)
    if in_head or channels.attention_of(node) is not None or channels.parameter(node.args[0]):
        return False
    sizes: Any = node.args[-1] if operation_name(node) != "unflatten" else ()
    varies = [i for i in range(after.ndim) if varies_along(after, i)]
    return not varies or len(sizes) != after.ndim or any(sizes[i] != -1 for i in varies)
