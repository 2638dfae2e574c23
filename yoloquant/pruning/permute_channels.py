"""Reorder channels of a live model, without changing what it computes, so that 2:4 pruning loses less.

Input channels of a layer can be reordered only with all that makes and reads them. The groups of structured pruning say
what that is: channels of one atom are made and read by the same layers, so any order of them is realisable.
"""

from __future__ import annotations

import copy
import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PruneError
from ..sparsity.permutation_search import Search, best_order, retained
from ..sparsity.sparse_layers import sparse_layers
from ..sparsity.two_four import GROUP, unfit
from .channel_graph import by_parameter
from .groups import Groups, find_groups
from .trace_channels import trace_channels

logger = logging.getLogger(__name__)

_Axes = dict[str, dict[int, tuple[int, ...]]]  # labels of every axis of every parameter

TOLERANCE = 1e-9  # relative, in double precision: sums in another order differ by rounding only


@dataclass(frozen=True)
class Reordered:
    """Channels that were looked at.

    Attributes:
        name: Path of the layer that makes them.
        readers: Weights that read them in groups of four.
        channels: How many there are.
        before: Share of the readers' magnitude that 2:4 pruning keeps in the order as it was.
        after: The same in the order as it is.
    """

    name: str
    readers: tuple[str, ...]
    channels: int
    before: float
    after: float


@dataclass(frozen=True)
class _Tie:
    """Channels that can be reordered freely: their labels, and where weights read them."""

    name: str
    labels: tuple[int, ...]
    readers: tuple[tuple[str, int], ...]  # weight, and the place of the first of them along its axis 1


def permute_channels(
    module: nn.Module,
    *,
    imgsz: tuple[int, int] = (64, 64),
    channels: int = 3,
    ignored: tuple[str, ...] = (),
    search: Search | None = None,
) -> tuple[Reordered, ...]:
    """Reorder channels in place, and prove that every raw output stays what it was.

    Args:
        module: A live, unfused Ultralytics model.
        imgsz: Height and width in pixels at which it is traced and proved.
        channels: Input channels.
        ignored: Layers that ``masks_24`` leaves dense too.
        search: Bounds of the search for each set of channels.

    Returns:
        What was reordered, in the order of execution.

    Raises:
        ModelError: The model cannot be traced.
        PruneError: Its outputs changed; the model is then as it was.
    """
    network = trace_channels(module, imgsz, channels)
    layers, _ = sparse_layers(module, ignored)
    ties = _ties(find_groups(network), {n for n in layers if not unfit(module, n)})
    axes = by_parameter(network.dims)
    # to put back if the proof fails
    before = {name: value.clone() for name, value in module.state_dict().items()}
    reference = _outputs(module, imgsz, channels)
    reordered = tuple(_reorder(module, tie, axes, search or Search()) for tie in ties)
    worst = _difference(reference, _outputs(module, imgsz, channels))
    # so written that NaN fails too
    if not worst <= TOLERANCE:
        module.load_state_dict(before)
        raise PruneError(
            f"reordering channels would change the model's outputs by {worst:.1e} of their range; the model is as it "
            "was. It holds a layer that is not understood: use permutation=none"
        )
    return reordered


def _ties(groups: Groups, weights: set[str]) -> list[_Tie]:
    """Atoms that at least one sparse weight reads in whole groups of four, and none in another way."""
    reads = [m for m in groups.network.dims if m.axis == 1 and m.parameter in weights]
    ties = []
    for group in groups.groups:
        for atom in group.atoms:
            starts = [(m.parameter, _starts(m.labels, atom.labels)) for m in reads]
            places = [(name, start) for name, found_at in starts for start in found_at or ()]
            # four channels are one group in any order
            if len(atom.labels) > GROUP and places and all(s is not None for _, s in starts):
                ties.append(_Tie(group.name, atom.labels, tuple(dict.fromkeys(places))))
    return ties


def _starts(axis: tuple[int, ...], labels: tuple[int, ...]) -> list[int] | None:
    """Where an axis holds the labels, in their order and in whole groups of four; None if it holds them otherwise."""
    label_set, count = set(labels), len(labels)
    places = [i for i, label in enumerate(axis) if label in label_set]
    starts = places[::count]
    fits = all(s % GROUP == 0 and axis[s : s + count] == labels for s in starts)
    return starts if fits and (count % GROUP == 0 or not places) else None


def _reorder(module: nn.Module, tie: _Tie, axes: _Axes, search: Search) -> Reordered:
    matrix = _matrix(module, tie)
    order = best_order(matrix, search)
    if not torch.equal(order, torch.arange(len(order))):
        _apply(module, tie.labels, order.tolist(), axes)
    total = max(float(matrix.double().sum()), 1e-30)
    before, after = retained(matrix) / total, retained(_matrix(module, tie)) / total
    logger.debug("%s: 2:4 keeps %.4f of its readers' magnitude, %.4f before", tie.name, after, before)
    return Reordered(tie.name, tuple(dict.fromkeys(n for n, _ in tie.readers)), len(tie.labels), before, after)


def _matrix(module: nn.Module, tie: _Tie) -> Tensor:
    """Magnitudes of all that reads the channels: a row for each output channel and kernel place, a column for each."""
    count = len(tie.labels)
    parts = [module.get_parameter(n).detach().narrow(1, s, count).movedim(1, -1) for n, s in tie.readers]
    return torch.cat([p.reshape(-1, count) for p in parts]).abs()


def _apply(module: nn.Module, labels: tuple[int, ...], order: list[int], axes: _Axes) -> None:
    """Put channel ``order[i]`` at the place of channel i, wherever the channels are."""
    target = {label: labels[order[i]] for i, label in enumerate(labels)}
    state = module.state_dict()
    for name, by_axis in axes.items():
        for axis, along in by_axis.items():
            places: dict[int, list[int]] = defaultdict(list)
            for place, label in enumerate(along):
                if label in target:
                    # an axis may hold a channel twice, where a concat joins a tensor with itself
                    places[label].append(place)
            if not places:
                continue
            index = torch.arange(len(along))
            for label, here in places.items():
                index[here] = torch.tensor(places[target[label]])
            tensor = state[name]
            tensor.copy_(tensor.index_select(axis, index.to(tensor.device)))


def _outputs(module: nn.Module, imgsz: tuple[int, int], channels: int) -> list[Tensor]:
    """Raw outputs of every branch of the head, in double precision."""
    twin: Any = copy.deepcopy(module).cpu().double().eval()
    twin.criterion = None
    for part in twin.model[-1].modules():
        part.training = not isinstance(part, (nn.BatchNorm2d, nn.Dropout))
    # random pixels: on a constant image channels could be exchanged without a difference
    images = torch.rand(1, channels, *imgsz, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        # in double precision, where an exact reordering differs by rounding alone
        return list(_tensors(twin(images)))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value):
            if key != "feats":  # what the head reads, passed on for its size; its channels may be in any order
                yield from _tensors(value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _difference(before: list[Tensor], after: list[Tensor]) -> float:
    pairs = zip(before, after, strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-30)) for a, b in pairs)
