"""How much each channel matters: one number per label, by criteria of the literature.

* ``l1``, ``l2``: norm of the weights that make and read a channel, relative to their layers' mean (arXiv 1608.08710;
  over whole dependency groups as in arXiv 2301.12900, section 3.3).
* ``bn``: absolute BatchNorm scale (network slimming, arXiv 1708.06519).
* ``taylor``: first-order change of the loss, ``|sum(weight * gradient)|`` (arXiv 1906.10771, eq. 8).
* ``lamp``: squared norm over the sum of all that are at least as large (arXiv 2010.07611, eq. 3).
* ``random``: the baseline that a criterion must beat.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..errors import PruneError
from .criteria import ImportanceCriterion
from .groups import Atom, Group, Groups

Scores = Mapping[int, float]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RemovalUnit:
    """What is removed at once.

    Attributes:
        group: Name of its group.
        rank: 0 for the least important one of the group.
        score: Its importance.
    """

    group: str
    rank: int
    score: float


def channel_scores(
    module: nn.Module,
    groups: Groups,
    criterion: ImportanceCriterion,
    *,
    gradients: Mapping[str, torch.Tensor] | None = None,
    seed: int = 0,
) -> dict[int, float]:
    """Importance of every prunable channel.

    Args:
        module: The live model.
        groups: Its groups.
        criterion: How it is measured.
        gradients: Change of the loss by channel of every gate (``training.prune.gradients``); needed by ``taylor``.
        seed: Of ``random``.

    Returns:
        Scores by label; only their order, and for a global ratio their relation between groups, means something.

    Raises:
        PruneError: ``taylor`` without gradients, ``bn`` for a model without BatchNorm.
    """
    if criterion is ImportanceCriterion.RANDOM:
        generator = np.random.default_rng(seed)
        return {label: float(generator.random()) for label in groups.owner}
    # no normalisation: a change of the loss is comparable across layers as it is
    if criterion is ImportanceCriterion.TAYLOR:
        if gradients is None:
            raise PruneError("criterion=taylor needs data=<data yaml> to take gradients on; or use criterion=l2")
        return _sum(_taylor(gradients, groups), groups)
    if criterion is ImportanceCriterion.BN:
        return _bn_scores(module, groups)
    # lamp builds on squared norms, as l2 does
    power = 1 if criterion is ImportanceCriterion.L1 else 2
    scores = _relative(_sum(_norms(module, groups, power), groups), groups)
    return _lamp(scores, groups) if criterion is ImportanceCriterion.LAMP else scores


def units(groups: Groups, scores: Scores) -> tuple[dict[str, tuple[tuple[int, ...], ...]], list[RemovalUnit]]:
    """Put the channels of each group into the order in which they go.

    Returns:
        Channel positions of every atom by group, least important first; and every unit with its score.
    """
    order: dict[str, tuple[tuple[int, ...], ...]] = {}
    units: list[RemovalUnit] = []
    for group in groups.groups:
        order[group.name] = tuple(_ascending(a, scores) for a in group.atoms)
        for rank in range(group.count):
            taken = _unit_scores(group, order[group.name], scores, rank)
            if not np.isfinite(taken).all():
                raise PruneError(f"the importance of '{group.name}' is NaN or infinite: look at the model and the data")
            units.append(RemovalUnit(group.name, rank, float(np.mean(taken))))
    return order, units


def _ascending(atom: Atom, scores: Scores) -> tuple[int, ...]:
    values = np.array([scores[label] for label in atom.labels])
    # stable: equal scores go in the order of the channels, on every platform
    return tuple(int(i) for i in np.argsort(values, kind="stable"))


def _unit_scores(group: Group, order: tuple[tuple[int, ...], ...], scores: Scores, rank: int) -> list[float]:
    return [
        scores[atom.labels[i]]
        for atom, positions in zip(group.atoms, order, strict=True)
        for i in positions[rank * atom.step : (rank + 1) * atom.step]
    ]


def _sum(parts: Iterator[tuple[tuple[int, ...], Floats]], groups: Groups) -> dict[int, float]:
    total: dict[int, float] = defaultdict(float)
    for labels, values in parts:
        for label, value in zip(labels, values, strict=True):
            if label in groups.owner:
                total[label] += float(value)
    return {label: total[label] for label in groups.owner}


def _norms(module: nn.Module, groups: Groups, power: int) -> Iterator[tuple[tuple[int, ...], Floats]]:
    """Norm of each channel's slice of every weight that makes or reads it, relative to the weight's mean norm."""
    parameters = dict(module.named_parameters())
    for member in groups.network.dims:
        weight = parameters.get(member.parameter)
        # biases and norms follow their layer: their size says nothing about the channel's use
        if weight is None or weight.dim() < 2:
            continue
        slices = weight.detach().cpu().double().transpose(0, member.axis).flatten(1)
        norm = slices.abs().sum(1) if power == 1 else slices.square().sum(1)
        # a layer with large weights would otherwise drown the others that share the channel
        yield member.labels, (norm / norm.mean().clamp(min=1e-12)).numpy()


def _bn_scores(module: nn.Module, groups: Groups) -> dict[int, float]:
    """Scales of BatchNorm; channels without any are judged by their weights, on the same average."""
    parts = list(_bn(module, groups))
    scaled = {label for labels, _ in parts for label in labels if label in groups.owner}
    if not scaled:
        raise PruneError("criterion=bn needs BatchNorm layers, and this model has none; use criterion=l2")
    scores = _sum(iter(parts), groups)
    if len(scaled) < len(scores):
        mean = float(np.mean([scores[label] for label in scaled]))
        weights = _relative(_sum(_norms(module, groups, 2), groups), groups)
        scores.update({label: mean * weights[label] for label in scores if label not in scaled})
    return scores


def _bn(module: nn.Module, groups: Groups) -> Iterator[tuple[tuple[int, ...], Floats]]:
    layers = {f"{n}.weight": m.weight for n, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for member in groups.network.dims:
        scale = layers.get(member.parameter)
        if scale is not None:
            yield member.labels, scale.detach().abs().cpu().double().numpy()


def _taylor(gradients: Mapping[str, torch.Tensor], groups: Groups) -> Iterator[tuple[tuple[int, ...], Floats]]:
    """Of the gates that make a channel; the layers that read it would count the same change again."""
    for member in groups.network.dims:
        product = gradients.get(member.parameter)
        # other axes of the same weight are what reads the channels
        if product is not None and product.shape[member.axis] == product.numel() == len(member.labels):
            yield member.labels, product.double().flatten().numpy()


def _relative(scores: dict[int, float], groups: Groups) -> dict[int, float]:
    """Relative to the mean of the group, so that groups of different scale can be compared."""
    result: dict[int, float] = {}
    for group in groups.groups:
        labels = [label for a in group.atoms for label in a.labels]
        # a group whose weights are all zero has nothing to divide by
        mean = float(np.mean([scores[label] for label in labels])) or 1.0
        result.update({label: scores[label] / mean for label in labels})
    return result


def _lamp(scores: dict[int, float], groups: Groups) -> dict[int, float]:
    result: dict[int, float] = {}
    for group in groups.groups:
        for atom in group.atoms:
            values = np.array([scores[label] for label in atom.labels])
            rising = np.argsort(values, kind="stable")
            # from each value to the largest of its layer
            rest = np.cumsum(values[rising][::-1])[::-1]
            shares = values[rising] / np.maximum(rest, 1e-12)
            result.update({atom.labels[i]: float(s) for i, s in zip(rising, shares, strict=True)})
    return result
