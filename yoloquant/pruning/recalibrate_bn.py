"""BatchNorm statistics after pruning: taken anew from images, with nothing else touched.

Removing channels shifts what every later layer sees, and running statistics still describe the old model. Averaging the
statistics of a few batches anew recovers most of what one-shot pruning loses, without any training (arXiv 2007.02491,
section 3.3: "adaptive batch normalization").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import PruneError

BATCH = 8  # images in one forward


def recalibrate_bn(module: nn.Module, batches: Iterable[Tensor]) -> int:
    """Average BatchNorm statistics over batches, in place.

    Every batch counts alike; there is no momentum, so neither the old statistics nor the order of the batches matters
    beyond rounding. Weights, momenta, counters, modes and gradients' flags are left as they were, also if it fails.

    Args:
        module: A live model; one whose BatchNorm is folded into its convolutions is left alone.
        batches: Images, float32 (batch, channels, height, width), 0 to 1; at least two images a batch are sensible.

    Returns:
        Layers whose statistics are new. Layers that no image reaches keep their old ones.

    Raises:
        PruneError: There are no batches, or the model answers them with NaN or infinite numbers.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms:
        return 0
    device = next(module.parameters()).device
    # kept, so that a failure half way leaves the model as it was
    before = [_statistics(m) for m in norms]
    done = False
    try:
        with _only_norms_train(module, norms), torch.no_grad():
            count = 0
            for batch in batches:
                module(batch.to(device))
                count += 1
        if not count:
            raise PruneError("BatchNorm statistics need at least one batch of images, and there is none")
        # a layer that no image reaches would be left with mean 0 and variance 1
        reached = [int(m.num_batches_tracked or 0) > 0 for m in norms]
        if not all(bool(t.isfinite().all()) for m in norms for t in _statistics(m)[:2]):
            raise PruneError("BatchNorm statistics are NaN or infinite on these images; prune less, or check the model")
        done = True
    finally:
        for i, (norm, old) in enumerate(zip(norms, before, strict=True)):
            _restore(norm, old, statistics=not (done and reached[i]))
    return sum(reached)


def _statistics(norm: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    count = norm.num_batches_tracked
    return norm.running_mean.clone(), norm.running_var.clone(), None if count is None else count.clone()


def _restore(norm: Any, old: tuple[Tensor, Tensor, Tensor | None], *, statistics: bool) -> None:
    mean, variance, count = old
    if statistics:
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    if count is not None:
        norm.num_batches_tracked.copy_(count)


@contextmanager
def _only_norms_train(module: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    modes = [(m, m.training) for m in module.modules()]
    momenta = [m.momentum for m in norms]
    try:
        module.eval()
        for m in _head(module):  # both branches of a head must run, and nothing needs decoding
            m.training = not isinstance(m, nn.modules.dropout._DropoutNd)
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch then averages over all batches
            norm.training = True
        yield
    finally:
        for m, mode in modes:
            m.training = mode
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _head(module: Any) -> Iterable[nn.Module]:
    layers = getattr(module, "model", None)
    return layers[-1].modules() if isinstance(layers, nn.Sequential) and len(layers) else ()


def stacked(images: Iterable[np.ndarray]) -> Iterator[torch.Tensor]:
    """Images (1, channels, height, width) in batches, the last one smaller."""
    found: list[np.ndarray] = []
    for image in images:
        found.append(image)
        if len(found) == BATCH:
            yield torch.from_numpy(np.concatenate(found))
            found = []
    if found:
        yield torch.from_numpy(np.concatenate(found))
