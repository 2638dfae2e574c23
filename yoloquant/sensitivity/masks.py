"""Closing channels instead of removing them: the same numbers, without building a smaller model.

A closed channel is zero wherever it is made. Whatever reads it by a convolution then gets from it what it would get if
it were gone. That holds as long as nothing in between turns zero into something else, which is looked at, not assumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..pruning.channel_graph import ChannelDim, ChannelGraph

_MAKERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@torch.no_grad()
def close(module: nn.Module, network: ChannelGraph, dropped: frozenset[int]) -> None:
    """Set the channels of some labels to zero where they are made, in place.

    Args:
        module: The live model.
        network: Its followed channels.
        dropped: Labels.
    """
    for layer, _, where in _made(module, network, dropped):
        axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        index = torch.tensor(where, device=layer.weight.device)
        layer.weight.index_fill_(axis, index, 0.0)
        if layer.bias is not None:
            # the bias too, or a closed channel would be a constant
            layer.bias.index_fill_(0, index, 0.0)


@contextmanager
def closed(module: nn.Module, network: ChannelGraph, dropped: frozenset[int]) -> Iterator[None]:
    """The same for as long as the block runs; the weights are then put back bit by bit."""
    layers = [layer for layer, _, _ in _made(module, network, dropped)]
    # once each, by identity: a shared layer would be saved a second time when it is closed already
    parameters = {id(p): p for layer in layers for p in (layer.weight, layer.bias) if p is not None}
    # copies and not a subtraction later: weights must come back bit by bit
    before = [(p, p.detach().clone()) for p in parameters.values()]
    try:
        close(module, network, dropped)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in before:
                parameter.copy_(value)


def first_changed(module: nn.Module, network: ChannelGraph, dropped: frozenset[int]) -> int:
    """Index of the first of the model's layers that closing changes."""
    return min((int(path.split(".")[1]) for _, path, _ in _made(module, network, dropped)), default=0)


@torch.no_grad()
def exact(module: nn.Module, network: ChannelGraph, dropped: frozenset[int], images: torch.Tensor) -> bool:
    """Whether every layer that reads closed channels reads zeros there.

    Args:
        module: The live model, closed.
        network: Its followed channels.
        dropped: Labels that were closed.
        images: A few images, (batch, channels, height, width).
    """
    clean = True

    def look(where: list[int], axis: int) -> Any:
        def hook(layer: nn.Module, args: Any) -> None:
            nonlocal clean
            # any value but 0: an activation that turns 0 into something else (sigmoid) makes closing differ from
            # cutting
            clean = clean and not bool(args[0].index_select(axis, torch.tensor(where)).any())

        return hook

    handles = [
        layer.register_forward_pre_hook(look(where, -1 if isinstance(layer, nn.Linear) else 1))
        for layer, where in _read(module, network, dropped)
    ]
    # one by one: ``train(mode)`` would reset parts that were in another mode
    modes = [(m, m.training) for m in module.modules()]
    try:
        module.eval()
        layers: Any = module.model
        layers[-1].training = True  # both branches of a head
        module(images)
    finally:
        for m, mode in modes:
            m.training = mode
        for handle in handles:
            handle.remove()
    return clean


def _made(module: nn.Module, network: ChannelGraph, dropped: frozenset[int]) -> Iterator[tuple[Any, str, list[int]]]:
    """Layers that make channels, with their path and the positions."""
    for layer, path, member, where in _members(module, network, dropped):
        output_axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        # a BatchNorm adds its bias again behind the layer that makes the channel
        if isinstance(layer, nn.BatchNorm2d) or (isinstance(layer, _MAKERS) and member.axis == output_axis):
            yield layer, path, where


def _read(module: nn.Module, network: ChannelGraph, dropped: frozenset[int]) -> Iterator[tuple[Any, list[int]]]:
    for layer, _, member, where in _members(module, network, dropped):
        # a grouped convolution reads channels along its output axis, one group each
        if isinstance(layer, _MAKERS) and (getattr(layer, "groups", 1) > 1 or member.axis == _reads(layer)):
            yield layer, where


def _reads(layer: nn.Module) -> int:
    return 0 if isinstance(layer, nn.ConvTranspose2d) else 1


def _members(
    module: nn.Module, network: ChannelGraph, dropped: frozenset[int]
) -> Iterator[tuple[nn.Module, str, ChannelDim, list[int]]]:
    modules = dict(module.named_modules())
    for member in network.dims:
        path, _, name = member.parameter.rpartition(".")
        where = [i for i, label in enumerate(member.labels) if label in dropped]
        layer = modules.get(path)  # a folded BatchNorm is gone
        if where and layer is not None and name == "weight":
            yield layer, path, member, where
