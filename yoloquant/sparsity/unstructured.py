"""Unstructured sparsity: which single weights become zero, by magnitude.

A mask is a bool tensor of the shape of a weight; True is a weight that stays. Masks are plain data, keyed by the name
of the parameter. ``training.prune.masks`` holds them while a model is trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PruneError, UsageError
from .sparse_layers import Skipped, sparse_layers

MaskTensors = dict[str, Tensor]


class SparsityScope(str, Enum):
    """Among which weights the smallest are looked for."""

    GLOBAL = "global"  # among all: layers with small weights lose more
    LAYER = "layer"  # every layer loses the same share


@dataclass(frozen=True)
class Sparsity:
    """How much becomes zero.

    Attributes:
        amount: Share of the weights that may become zero, 0 or more and below 1.
        scope: Among which weights the smallest are looked for.
        ignored: Patterns (``*``, ``?``) of layers or parameters that stay dense, besides those that always do.
    """

    amount: float = 0.5
    scope: SparsityScope = SparsityScope.GLOBAL
    ignored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_amount(self.amount)
        if not isinstance(self.scope, SparsityScope):
            raise UsageError(
                f"scope={self.scope!r} is not supported; allowed are {', '.join(s.value for s in SparsityScope)}"
            )


@dataclass(frozen=True)
class LayerSparsity:
    """Zeros of one weight.

    Attributes:
        name: The parameter.
        shape: Its shape.
        zeros: How many of its values are zero.
        total: How many it has.
    """

    name: str
    shape: tuple[int, ...]
    zeros: int
    total: int

    @property
    def share(self) -> float:
        """Share of zeros."""
        return self.zeros / self.total


@dataclass(frozen=True)
class SparsityReport:
    """Zeros of a model.

    Attributes:
        layers: Weights that may be sparse.
        skipped: Weights that stay dense, with the reason.
    """

    layers: tuple[LayerSparsity, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def share(self) -> float:
        """Share of zeros among all weights that may be sparse."""
        total = sum(layer.total for layer in self.layers)
        return sum(layer.zeros for layer in self.layers) / total if total else 0.0

    def to_plain(self) -> dict[str, Any]:
        """Plain data for reports."""
        return {
            "share": self.share,
            "layers": [{"name": x.name, "shape": list(x.shape), "zeros": x.zeros} for x in self.layers],
            "skipped": [{"name": s.name, "reason": s.reason} for s in self.skipped],
        }


def check_amount(amount: float) -> None:
    """Raise UsageError unless an amount is a share below one."""
    if not (isinstance(amount, (int, float)) and math.isfinite(amount) and 0 <= amount < 1):
        raise UsageError(
            f"amount={amount} is not supported; it is a share of zeros: 0 or more and below 1, such as 0.5"
        )


def magnitude_masks(module: nn.Module, sparsity: Sparsity, held: Mapping[str, Tensor] | None = None) -> MaskTensors:
    """Choose the weights of smallest magnitude.

    Exactly ``round(amount * weights)`` are chosen, among equals those that come first in memory last.

    Args:
        module: A live Ultralytics model; left untouched.
        sparsity: How much, and where.
        held: Masks that hold already: what they zero is chosen before anything else.

    Returns:
        Masks by parameter name, on the parameters' device.

    Raises:
        PruneError: A layer would be left without any weight; it states the largest amount that is possible.
    """
    layers, _ = sparse_layers(module, sparsity.ignored)
    magnitude = {name: _magnitude(weight, (held or {}).get(name)) for name, weight in layers.items()}
    if sparsity.scope is SparsityScope.LAYER:
        masks = {name: _largest(m, _kept(m.numel(), sparsity.amount)) for name, m in magnitude.items()}
    else:
        # one threshold over all layers: layers of small weights lose more, which is what a global scope means
        values = torch.cat(list(magnitude.values()))
        chosen = _largest(values, _kept(values.numel(), sparsity.amount))
        sizes = [m.numel() for m in magnitude.values()]
        masks = dict(zip(magnitude, torch.split(chosen, sizes), strict=True))  # type: ignore[no-untyped-call]
    # a layer without weights passes nothing on, and no training brings it back
    empty = [name for name, mask in masks.items() if not bool(mask.any())]
    if empty:
        raise PruneError(
            f"amount={sparsity.amount:g} would leave {empty[0]} without any weight ({len(empty)} such layers); with "
            f"scope={sparsity.scope.value} the largest amount is {_largest_amount(magnitude, sparsity.scope):g}. Ask "
            "for less, use scope=layer, or ignore the layer"
        )
    return {name: mask.reshape(layers[name].shape) for name, mask in masks.items()}


def _magnitude(weight: Tensor, held: Tensor | None) -> Tensor:
    values = weight.detach().abs().float().flatten()
    # below every magnitude, so that zeros stay zero while the share grows
    return values if held is None else values.masked_fill(~held.to(values.device).flatten(), -1.0)


def _kept(total: int, amount: float) -> int:
    return total - round(amount * total)


def _largest(values: Tensor, count: int) -> Tensor:
    """Mark exactly ``count`` of the largest values; of equal ones the first."""
    if count <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    # a sort of all weights would take longer and give the same
    threshold = torch.kthvalue(values, values.numel() - count + 1).values
    chosen = values > threshold
    equal = torch.nonzero(values == threshold).flatten()[: count - int(chosen.sum())]
    chosen[equal] = True
    return chosen


def _largest_amount(magnitude: Mapping[str, Tensor], scope: SparsityScope) -> float:
    """The largest amount that leaves every layer a weight, rounded down."""
    if scope is SparsityScope.LAYER:
        smallest = min(m.numel() for m in magnitude.values())
        share = (smallest - 1) / smallest
    else:
        limit = min(float(m.max()) for m in magnitude.values())
        below = sum(int((m < limit).sum()) for m in magnitude.values())
        share = below / sum(m.numel() for m in magnitude.values())
    # down, so that asking for the number in the message works
    return math.floor(share * 1e4) / 1e4


def apply_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set what masks drop to zero, in place.

    Raises:
        PruneError: A mask does not fit the module; nothing is changed then.
    """
    # all are checked before the first is applied
    pairs = [(parameter_for(module, name, mask), mask) for name, mask in masks.items()]
    with torch.no_grad():
        for parameter, mask in pairs:
            parameter.masked_fill_(~mask.to(parameter.device), 0.0)


def parameter_for(module: nn.Module, name: str, mask: Tensor) -> nn.Parameter:
    """The parameter that a mask belongs to.

    Raises:
        PruneError: There is none, its shape is another one, or the mask is not boolean.
    """
    try:
        parameter = module.get_parameter(name)
    except AttributeError:
        raise PruneError(
            f"the mask of {name} does not fit: the model has no such parameter. Masks belong to the model that they "
            "were made for; make them anew after channels were pruned or branches merged"
        ) from None
    if mask.shape != parameter.shape:
        raise PruneError(
            f"the mask of {name} has shape {tuple(mask.shape)}, the weight {tuple(parameter.shape)}. Masks belong to "
            "the model that they were made for; make them anew after channels were pruned"
        )
    if mask.dtype != torch.bool:
        raise PruneError(f"the mask of {name} holds {mask.dtype}; allowed is torch.bool, True for weights that stay")
    return parameter


def masks_of(module: nn.Module, ignored: tuple[str, ...] = ()) -> MaskTensors:
    """Read masks back from a sparse model: those layers that may be sparse and hold a zero."""
    layers, _ = sparse_layers(module, ignored)
    masks = {name: weight.detach() != 0 for name, weight in layers.items()}
    return {name: mask for name, mask in masks.items() if not bool(mask.all())}


def sparsity_report(module: nn.Module, ignored: tuple[str, ...] = ()) -> SparsityReport:
    """Count the zeros of every layer that may be sparse."""
    layers, skipped = sparse_layers(module, ignored)
    counted = (
        LayerSparsity(name, tuple(weight.shape), int((weight.detach() == 0).sum()), weight.numel())
        for name, weight in layers.items()
    )
    return SparsityReport(tuple(counted), tuple(skipped))
