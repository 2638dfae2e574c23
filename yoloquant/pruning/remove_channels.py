"""Removing channels from a live model, so that it is an ordinary smaller model afterwards."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..errors import PruneError
from .channel_graph import ChannelGraph, Equal, Split
from .groups import Groups, find_groups
from .metadata import RECORD, entry, mark_yaml
from .plan import PrunePlan
from .trace_channels import raw_twin, trace_channels


def pruned(module: nn.Module, plan: PrunePlan, *, channels: int = 3, groups: Groups | None = None) -> nn.Module:
    """A copy of a model without the channels that a plan drops.

    Args:
        module: A live, unfused YOLO.
        plan: What goes.
        channels: Input channels.
        groups: What was found when the model's channels were followed; they are followed anew by default, for seconds.

    Returns:
        The smaller model; an ordinary one, save for its shapes.

    Raises:
        PruneError: The plan does not fit the model, or the smaller model does not run.
        ModelError: The model cannot be traced.
    """
    if groups is None:
        groups = find_groups(trace_channels(module, plan.imgsz, channels))
    network, dropped = groups.network, plan.dropped(groups)
    # the model that was given stays whole: latency is measured on many plans of one model
    result = copy.deepcopy(module)
    remove_channels(result, network, dropped)
    _check_runs(result, plan.imgsz, channels)
    # an attribute of plain data: Ultralytics' checkpoints keep it, and loading needs none of our classes
    setattr(result, RECORD, [*getattr(module, RECORD, []), entry(plan, groups, network)])
    # Ultralytics rebuilds a model from its yaml when it trains; this yaml must say that the shapes are others
    mark_yaml(result)
    return result


def _check_runs(module: nn.Module, imgsz: tuple[int, int], channels: int) -> None:
    """Run it once: a block whose code holds sizes of its own would fail only when it is used."""
    with torch.no_grad():
        try:
            raw_twin(module)(torch.zeros(1, channels, *imgsz))
        except Exception as exc:  # whatever the code of a custom block raises
            raise PruneError(
                f"the model does not run after pruning ({exc}): a block of its own holds sizes in its code; keep the "
                "layers around it with ignored=<their names, see dry-run=true>"
            ) from exc


def remove_channels(module: Any, network: ChannelGraph, dropped: frozenset[int]) -> None:
    """Remove channels, in place."""
    for path, axes in _by_module(network, dropped).items():
        _cut_module(module.get_submodule(path), path, axes)
    # parameters outside layers have no counter to keep up, such as ``out_channels``
    for path, name, axes in _bare(module, network, dropped):
        owner = module.get_submodule(path)
        old = getattr(owner, name)
        for axis, positions in axes.items():
            keep = _keep(old.shape[axis], positions)
            old = _selected(old, axis, keep)
        setattr(owner, name, old)
    for constraint in network.equal:
        _adjust(module, constraint, dropped)


def _selected(old: torch.Tensor, axis: int, keep: list[int]) -> torch.Tensor:
    new = old.detach().index_select(axis, torch.tensor(keep, device=old.device))
    return nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new


def _by_module(network: ChannelGraph, dropped: frozenset[int]) -> dict[str, dict[int, list[int]]]:
    """Positions that go, by module and axis of its weight."""
    positions_by_module: dict[str, dict[int, list[int]]] = defaultdict(dict)
    for member in network.dims:
        positions = [i for i, label in enumerate(member.labels) if label in dropped]
        path, _, name = member.parameter.rpartition(".")
        if positions and name == "weight":
            positions_by_module[path][member.axis] = positions
    return positions_by_module


def _bare(
    module: nn.Module, network: ChannelGraph, dropped: frozenset[int]
) -> Iterable[tuple[str, str, dict[int, list[int]]]]:
    """Parameters that belong to no layer, such as the gain of an attention block."""
    for member in network.dims:
        positions = [i for i, label in enumerate(member.labels) if label in dropped]
        path, _, name = member.parameter.rpartition(".")
        owner = module.get_submodule(path)
        if positions and not isinstance(owner, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm2d)):
            yield path, name, {member.axis: positions}


def _cut_module(layer: nn.Module, path: str, axes: dict[int, list[int]]) -> None:
    """Remove output channels (axis 0) and input channels (axis 1; transposed convolutions the other way round)."""
    if isinstance(layer, nn.BatchNorm2d):
        # counters such as num_features are not read by forward, but by printing, fusing and exporting
        layer.num_features = _slice(layer, ("weight", "bias", "running_mean", "running_var"), axes[0])
    elif isinstance(layer, nn.Linear):
        if 0 in axes:
            layer.out_features = _slice(layer, ("weight", "bias"), axes[0])
        if 1 in axes:
            layer.in_features = _slice(layer, ("weight",), axes[1], axis=1)
    elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        _cut_convolution(layer, axes)
    # a parametrised layer computes its weight from others, which would grow it back
    elif hasattr(layer, "weight") and isinstance(layer.weight, nn.Module):
        raise PruneError(f"the layer {path} ({type(layer).__name__}) cannot be pruned")


def _cut_convolution(layer: nn.Conv2d | nn.ConvTranspose2d, axes: dict[int, list[int]]) -> None:
    out, inner = (1, 0) if isinstance(layer, nn.ConvTranspose2d) else (0, 1)
    if layer.groups > 1:  # depthwise: a channel is its own input, output and group
        left = _slice(layer, ("weight", "bias"), axes[0])
        layer.in_channels = layer.out_channels = layer.groups = left
        return
    if out in axes:
        layer.out_channels = _slice(layer, ("weight",), axes[out], axis=out)
        _slice(layer, ("bias",), axes[out])
    if inner in axes:
        layer.in_channels = _slice(layer, ("weight",), axes[inner], axis=inner)


def _slice(layer: nn.Module, names: tuple[str, ...], positions: list[int], axis: int = 0) -> int:
    """Remove positions from tensors of a layer where it has them, and return how many are left."""
    left = 0
    for name in names:
        old = getattr(layer, name)
        if old is not None:
            keep = _keep(old.shape[axis], positions)
            setattr(layer, name, _selected(old, axis, keep))
            left = len(keep)
    return left


def _keep(size: int, positions: list[int]) -> list[int]:
    away = set(positions)
    return [i for i in range(size) if i not in away]


def _adjust(module: Any, constraint: Equal, dropped: frozenset[int]) -> None:
    """Give a block's own numbers the new sizes."""
    owner: Any = module.get_submodule(constraint.module)
    old = len(constraint.parts[0])
    left = {len([v for v in part if v not in dropped]) for part in constraint.parts}
    # groups make this impossible; a plan from a file may not respect them
    if len(left) != 1:
        raise PruneError(f"the parts of {constraint.module} would keep different numbers of channels: {sorted(left)}")
    (new,) = left
    if constraint.kind is not Split.WIDTH:
        _resize_heads(owner, constraint.kind, new)
    elif getattr(owner, "c", None) == old:
        owner.c = new


def _resize_heads(owner: Any, kind: Split, new: int) -> None:
    if kind is Split.KEY:
        owner.key_dim = new  # its scale stays: the products that are left are on the same footing as before
        return
    old = owner.head_dim
    owner.head_dim = new
    if hasattr(owner, "all_head_dim"):
        owner.all_head_dim = new * owner.num_heads
        if not hasattr(owner, "key_dim") and new != old:
            _keep_temperature(owner, old, new)


def _keep_temperature(owner: Any, old: int, new: int) -> None:
    """Its forward divides by the root of the head's width: let the queries make up for the change."""
    norm = owner.qkv.bn
    # query, key and value lie head after head, each new channels wide
    rows = torch.arange(norm.num_features) % (3 * new) < new
    factor = (new / old) ** 0.5
    with torch.no_grad():
        # in the norm and not in the convolution: folding comes later and takes it along
        norm.weight[rows] *= factor
        norm.bias[rows] *= factor
