"""Making a plan: follow the channels, weigh them, and choose what goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..errors import PruneError
from .choices import Criterion, Measure
from .cost import Cost, CostModel
from .groups import Groups, find_groups
from .importance import Unit, channel_scores, units
from .labels import follow
from .options import PruneOptions
from .plan import Entry, PrunePlan
from .solve import Ladder, measure_of, solve

Latency = Callable[[nn.Module], float]
"""Milliseconds of a live model in the runtime that counts."""


@dataclass(frozen=True)
class Analysis:
    """A model whose channels have been followed and weighed.

    Attributes:
        groups: What can be removed.
        costs: What is left when it is.
        order: Channel positions of every group, least important first.
        units: Every unit with its importance.
    """

    groups: Groups
    costs: CostModel
    order: Mapping[str, tuple[tuple[int, ...], ...]]
    units: tuple[Unit, ...]


def weigh(
    module: nn.Module,
    options: PruneOptions,
    imgsz: tuple[int, int],
    *,
    channels: int = 3,
    gradients: Mapping[str, torch.Tensor] | None = None,
) -> Analysis:
    """Follow and weigh every channel.

    Args:
        module: The live model.
        options: The criterion; one that is left open is ``taylor`` with gradients, else ``l2``.
        imgsz: Input height and width in pixels at which multiplications are counted.
        channels: Input channels.
        gradients: Change of the loss by channel (``training.gradients``), for ``criterion=taylor``.

    Raises:
        ModelError: The model cannot be traced.
        PruneError: The criterion lacks data.
    """
    network = follow(module, imgsz, channels)
    groups = find_groups(network)
    known = {m.parameter for m in network.members}
    extra = sum(p.numel() for n, p in module.named_parameters() if n not in known)
    criterion = options.measured_by(gradients is not None)
    scores = channel_scores(module, groups, criterion, gradients=gradients, seed=options.seed)
    order, found = units(groups, scores)
    costs = CostModel(groups, extra)
    if criterion is Criterion.TAYLOR:
        found = _for_what_they_cost(found, groups, costs, options.target)
    return Analysis(groups, costs, order, tuple(found))


def _for_what_they_cost(found: Sequence[Unit], groups: Groups, costs: CostModel, target: Measure) -> list[Unit]:
    """Units by the loss that they hold over the root of what they cost.

    A unit's loss is the sum over its channels. Ranking by loss alone empties cheap layers to no avail, by loss over
    cost the costly ones; the root lies between the two.
    """
    if target is Measure.CHANNELS:
        return list(found)
    full = groups.full()
    measure = measure_of(costs, Measure.PARAMETERS if target is Measure.PARAMETERS else Measure.FLOPS)
    whole = measure(full)
    channels = {g.name: sum(a.step for a in g.atoms) for g in groups.groups}
    saved = {name: (whole - measure({**full, name: left - 1})) / whole for name, left in full.items()}
    return [replace(u, score=u.score * channels[u.group] / max(saved[u.group], 1e-12) ** 0.5) for u in found]


def make_plan(
    analysis: Analysis,
    options: PruneOptions,
    imgsz: tuple[int, int],
    *,
    round_to: int = 8,
    protected: dict[str, float] | None = None,
    full: Cost | None = None,
) -> PrunePlan:
    """Choose what goes so that the target is met.

    Args:
        analysis: The weighed model.
        options: Target, scope and limits; ``target=latency`` is solved by ``latency.plan_for_latency``.
        imgsz: Input height and width in pixels.
        round_to: Channel multiple where the options name none.
        protected: Largest share that may go of sensitive layers.
        full: Cost that the share counts from, of a model that was pruned before; its own by default.

    Raises:
        PruneError: So much cannot go; the message states the most that can.
        UsageError: A pattern matches no layer.
    """
    ladder = Ladder(analysis.groups, analysis.units, options.limits(round_to, protected), options.scope)
    measure = measure_of(analysis.costs, options.target)
    share = options.amount
    if full is not None and options.target in {Measure.FLOPS, Measure.PARAMETERS}:
        whole = full.macs if options.target is Measure.FLOPS else full.parameters
        now = measure(analysis.groups.full())
        share = 1 - (1 - options.amount) * whole / now
        if share <= 0:
            raise PruneError(
                f"the model is pruned already: {1 - now / whole:.1%} of its {options.target.value} are gone, and "
                f"{options.amount:.0%} were asked for. Shares count from the unpruned model: ask for more, or train it"
            )
    left = solve(ladder, measure, share, options.target.value)
    return plan_of(analysis, left, options, imgsz)


def plan_of(analysis: Analysis, left: Mapping[str, int], options: PruneOptions, imgsz: tuple[int, int]) -> PrunePlan:
    """The plan that leaves so many units of every group."""
    groups, costs = analysis.groups, analysis.costs
    entries = tuple(Entry(g.name, g.count, left[g.name], tuple(analysis.order[g.name])) for g in groups.groups)
    return PrunePlan(
        entries, imgsz, costs(groups.full()), costs(left), settings=options.to_dict(), layers=costs.layers(left)
    )


def refreshed(plan: PrunePlan, analysis: Analysis) -> PrunePlan:
    """A plan that was read from a file, with the costs of what it says now."""
    plan.dropped(analysis.groups)  # a clear error if it does not fit
    costs = analysis.costs
    return replace(plan, before=costs(analysis.groups.full()), after=costs(plan.left), layers=costs.layers(plan.left))
