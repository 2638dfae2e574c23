"""Making a plan: trace the channels, compute their importance, and choose what goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..errors import PruneError
from .cost import Cost, CostModel
from .criteria import ImportanceCriterion, Measure
from .groups import Groups, find_groups
from .importance import RemovalUnit, channel_scores
from .importance import units as units_of
from .plan import GroupDecision, PrunePlan
from .prune_options import PruneOptions
from .solver import Ladder, measure_of, solve
from .trace_channels import trace_channels


@dataclass(frozen=True)
class Analysis:
    """A model whose channels have been followed and weighed.

    Attributes:
        groups: What can be removed.
        costs: What is left when it is.
        order: Channel positions of every group, least important first.
        units: Every unit with its importance.
        criterion: How that was measured.
    """

    groups: Groups
    costs: CostModel
    order: Mapping[str, tuple[tuple[int, ...], ...]]
    units: tuple[RemovalUnit, ...]
    criterion: ImportanceCriterion


def compute_importance(
    module: nn.Module,
    options: PruneOptions,
    imgsz: tuple[int, int],
    *,
    channels: int = 3,
    gradients: Mapping[str, torch.Tensor] | None = None,
) -> Analysis:
    """Trace every channel and compute its importance.

    Args:
        module: The live model.
        options: The criterion; one that is left open is ``taylor`` with gradients, else ``l2``.
        imgsz: Input height and width in pixels at which multiplications are counted.
        channels: Input channels.
        gradients: Change of the loss by channel (``training.prune.gradients``), for ``criterion=taylor``.

    Raises:
        ModelError: The model cannot be traced.
        PruneError: The criterion lacks data.
    """
    network = trace_channels(module, imgsz, channels)
    groups = find_groups(network)
    known = {m.parameter for m in network.dims}
    # counted, or shares of the parameters would be shares of a smaller model than the user's
    extra = sum(p.numel() for n, p in module.named_parameters() if n not in known)
    criterion = options.measured_by(gradients is not None)
    scores = channel_scores(module, groups, criterion, gradients=gradients, seed=options.seed)
    order, found = units_of(groups, scores)
    return Analysis(groups, CostModel(groups, extra), order, tuple(found), criterion)


def ranked(analysis: Analysis, measure: Callable[[Mapping[str, int]], float] | None) -> tuple[RemovalUnit, ...]:
    """Units by the loss that they hold over the root of what they cost; as they are for the other criteria.

    A unit's loss is the sum over its channels. Ranking by loss alone empties cheap layers to no avail, by loss over
    cost the costly ones; the root lies between the two.

    Args:
        analysis: The weighed model.
        measure: Cost of what is left; None where every unit costs the same.
    """
    if measure is None or analysis.criterion is not ImportanceCriterion.TAYLOR:
        return analysis.units
    groups = analysis.groups
    full = groups.full()
    whole = measure(full)
    channels = {g.name: sum(a.step for a in g.atoms) for g in groups.groups}
    # of the first unit: widths of neighbours change what later ones save, but not which layers are costly
    saved = {name: (whole - measure({**full, name: kept - 1})) / whole for name, kept in full.items()}
    # a unit that saves more may go earlier; the root keeps cheap layers from being spared altogether
    weights = {name: channels[name] / max(saved[name], 1e-12) ** 0.5 for name in full}
    return tuple(replace(u, score=u.score * weights[u.group]) for u in analysis.units)


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
        options: Target, scope and limits; ``target=latency`` is solved by ``pruning.latency.plan_for_latency``.
        imgsz: Input height and width in pixels.
        round_to: Channel multiple where the options name none.
        protected: Largest share that may go of sensitive layers.
        full: Cost that the share counts from, of a model that was pruned before; its own by default.

    Raises:
        PruneError: So much cannot go; the message states the most that can.
        UsageError: A pattern matches no layer.
    """
    measure = measure_of(analysis.costs, options.target)
    units = ranked(analysis, None if options.target is Measure.CHANNELS else measure)
    ladder = Ladder(analysis.groups, units, options.limits(round_to, protected), options.scope)
    share = options.amount
    # pruning in steps: each share counts from the model before the first one
    if full is not None and options.target in {Measure.FLOPS, Measure.PARAMETERS}:
        whole = full.macs if options.target is Measure.FLOPS else full.parameters
        now = measure(analysis.groups.full())
        share = 1 - (1 - options.amount) * whole / now
        if share <= 0:
            raise PruneError(
                f"the model is pruned already: {1 - now / whole:.1%} of its {options.target.value} are gone, and "
                f"{options.amount:.0%} were asked for. Shares count from the unpruned model: ask for more, or train it"
            )
    kept = solve(ladder, measure, share, options.target.value)
    return plan_of(analysis, kept, options, imgsz)


def plan_of(analysis: Analysis, kept: Mapping[str, int], options: PruneOptions, imgsz: tuple[int, int]) -> PrunePlan:
    """The plan that leaves so many units of every group."""
    groups, costs = analysis.groups, analysis.costs
    entries = tuple(GroupDecision(g.name, g.count, kept[g.name], tuple(analysis.order[g.name])) for g in groups.groups)
    return PrunePlan(
        entries, imgsz, costs(groups.full()), costs(kept), settings=options.to_dict(), layers=costs.layers(kept)
    )


def refreshed(plan: PrunePlan, analysis: Analysis) -> PrunePlan:
    """A plan that was read from a file, with the costs of what it says now."""
    plan.dropped(analysis.groups)  # a clear error if it does not fit
    costs = analysis.costs
    return replace(plan, before=costs(analysis.groups.full()), after=costs(plan.kept), layers=costs.layers(plan.kept))
