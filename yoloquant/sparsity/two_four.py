"""2:4 sparsity: of every four weights along the input channels, at least two are zero.

This is what sparse tensor cores take: TensorRT's developer guide asks, for every output channel and every spatial place
of a (K, C, R, S) weight, for two zeros in each four successive input channels, with C a multiple of 4; a linear layer's
(K, C) weight is the case R = S = 1. ``pruning.permute_channels`` reorders channels first, so that less is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import PruneError
from .sparse_layers import Skipped, sparse_layers
from .unstructured import MaskTensors

KEPT, GROUP = 2, 4


@dataclass(frozen=True)
class Masks24:
    """2:4 masks of a model.

    Attributes:
        masks: Masks by parameter name.
        skipped: Layers that stay dense, with the reason.
        retained: Share of the summed magnitude of the masked layers that stays.
    """

    masks: MaskTensors
    skipped: tuple[Skipped, ...]
    retained: float


@dataclass(frozen=True)
class Check24:
    """Whether an array is 2:4 along its axis 1.

    Attributes:
        groups: Groups of four.
        broken: Groups with more than two values that are not zero.
        zeros: Share of zeros.
    """

    groups: int
    broken: int
    zeros: float

    @property
    def ok(self) -> bool:
        """Whether every group has its two zeros."""
        return self.broken == 0


def masks_24(module: nn.Module, ignored: tuple[str, ...] = ()) -> Masks24:
    """Choose the best two of every four input channels by magnitude.

    BatchNorm folding multiplies whole output channels, so the choice is the same before and after it.

    Args:
        module: A live Ultralytics model; left untouched.
        ignored: Patterns of layers or parameters that stay dense, besides those that always do.

    Returns:
        Masks, and the layers without one.

    Raises:
        PruneError: No layer can be 2:4.
    """
    layers, skipped = sparse_layers(module, ignored)
    masks: MaskTensors = {}
    for name, weight in layers.items():
        reason = unfit(module, name)
        if reason:
            skipped.append(Skipped(name, reason))
        else:
            masks[name] = mask_24(weight)
    if not masks:
        raise PruneError(f"no layer can be 2:4: {skipped[0].name}: {skipped[0].reason} (and {len(skipped) - 1} others)")
    # of the masked layers alone: dense ones keep everything and would hide the loss
    total = sum(float(layers[n].detach().abs().sum()) for n in masks)
    kept = sum(float(layers[n].detach().abs()[m].sum()) for n, m in masks.items())
    # A model of zeros loses nothing.
    return Masks24(masks, tuple(skipped), kept / total if total else 1.0)


def unfit(module: nn.Module, name: str) -> str:
    """Why a layer's weight cannot be 2:4; empty if it can."""
    layer: Any = module.get_submodule(name.rpartition(".")[0])
    if getattr(layer, "groups", 1) > 1:
        kind = "depthwise" if layer.groups == layer.in_channels else f"{layer.groups} groups of channels"
        return f"{kind}: sparse tensor cores take dense convolutions only"
    if layer.weight.shape[1] % GROUP:
        return f"{layer.weight.shape[1]} input channels are not a multiple of {GROUP}"
    return ""


def mask_24(weight: Tensor) -> Tensor:
    """Best two of every four along axis 1.

    Args:
        weight: (K, C) or (K, C, R, S), C a multiple of 4.

    Returns:
        The mask, of the same shape; among equals the first stay.

    Raises:
        PruneError: The shape has no groups of four.
    """
    if weight.ndim < 2 or weight.shape[1] % GROUP:
        raise PruneError(
            f"a weight of shape {tuple(weight.shape)} has no groups of four along its input channels (axis 1)"
        )
    # (K, R, S, C), so that groups of four lie side by side.
    rows = weight.detach().abs().movedim(1, -1)
    groups = rows.reshape(*rows.shape[:-1], -1, GROUP)
    # stable: the same weights give the same mask on every device
    order = groups.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., :KEPT], True)
    return mask.reshape(rows.shape).movedim(-1, 1).contiguous()


def check_24(array: np.ndarray[Any, Any] | Tensor) -> Check24:
    """Count the groups of four along axis 1 that have more than two values other than zero.

    Raises:
        PruneError: The shape has no groups of four.
    """
    values = np.asarray(array.detach().cpu() if isinstance(array, Tensor) else array)
    if values.ndim < 2 or values.shape[1] % GROUP:
        raise PruneError(f"an array of shape {values.shape} has no groups of four along its input channels (axis 1)")
    rows = np.moveaxis(values, 1, -1)
    # exact zeros: the hardware drops whatever the mask of two does not hold
    filled = (rows.reshape(-1, GROUP) != 0).sum(axis=1)
    return Check24(int(filled.size), int((filled > KEPT).sum()), float((values == 0).mean()))
