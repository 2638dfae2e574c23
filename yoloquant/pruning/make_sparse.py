"""The sparse kinds of pruning: zeros inside layers that keep their shapes."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from ..bridge.host_model import HostModel
from ..sparsity.record import RECORD, sparse_record
from ..sparsity.two_four import masks_24
from ..sparsity.unstructured import Sparsity, apply_masks, magnitude_masks, sparsity_report
from ..sparsity.unstructured import SparsityScope as Among
from .criteria import Permutation, PruningKind, PruningScope
from .permute_channels import permute_channels
from .prune_options import PruneOptions


def sparsity_of(options: PruneOptions) -> Sparsity:
    """The amount of zeros that options ask for."""
    return Sparsity(
        options.amount, Among.LAYER if options.scope is PruningScope.UNIFORM else Among.GLOBAL, options.ignored
    )


def make_sparse(source: HostModel, options: PruneOptions) -> tuple[nn.Module, list[str]]:
    """A copy of a model with zeros, and what was done in lines for people.

    Raises:
        PruneError: So many zeros are not possible.
    """
    module = copy.deepcopy(source.module)
    # Before the masks: the order decides which two of four stay.
    lines = reordered(module, options, source.channels)
    if options.kind is PruningKind.NM:
        masks = masks_24(module, options.ignored)
        apply_masks(module, masks.masks)
        lines.append(f"2:4 in {len(masks.masks)} layers, {masks.retained:.1%} of their magnitude stays")
        lines += [f"dense: {s.name} ({s.reason})" for s in masks.skipped]
    else:
        apply_masks(module, magnitude_masks(module, sparsity_of(options)))
    note(module, options)
    lines.append(f"{sparsity_report(module, options.ignored).share:.1%} of the weights that may be sparse are zero")
    return module, lines


def reordered(module: Any, options: PruneOptions, channels: int) -> list[str]:
    """Reorder channels in place so that 2:4 loses less, if that is asked for."""
    if options.kind is not PruningKind.NM or options.permutation is Permutation.NONE:
        return []
    moved = permute_channels(module, channels=channels, ignored=options.ignored)
    better = [m for m in moved if m.after > m.before]
    return [f"reordered the channels of {len(better)} layers for 2:4"]


def is_sparse(module: nn.Module) -> bool:
    """Whether a live model has zeros that are meant to stay."""
    return bool(sparse_record(module))


def is_permuted(module: nn.Module) -> bool:
    """Whether the channels of a sparse model may have another order than those of the dense one."""
    # Records of earlier releases do not tell: then no channel is taken for that of the dense model.
    return is_sparse(module) and sparse_record(module).get("permutation", "unknown") != "none"


def note(module: nn.Module, options: PruneOptions) -> None:
    """Leave word in the model that its zeros are meant."""
    setattr(
        module, RECORD, {"kind": options.kind.value, "amount": options.amount, "permutation": options.permutation.value}
    )
