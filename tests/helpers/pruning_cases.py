"""What the tests of structured pruning share: models whose channels were followed once, and plans at random."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st
from tiny_models import tiny_yolo
from torch import nn

from yoloquant.errors import PruneError
from yoloquant.pruning.channel_graph import ChannelGraph
from yoloquant.pruning.cost import CostModel
from yoloquant.pruning.criteria import ImportanceCriterion, Limits, Measure, PruningScope
from yoloquant.pruning.groups import Groups, find_groups
from yoloquant.pruning.importance import channel_scores, units
from yoloquant.pruning.plan import GroupDecision, PrunePlan
from yoloquant.pruning.solver import Ladder, measure_of, solve
from yoloquant.pruning.trace_channels import raw_twin, trace_channels

SIZE = (64, 64)
ATTENTION = ("yolo11", "yolo12")  # the two kinds of attention block


@dataclass(frozen=True)
class Case:
    """A model and everything that following its channels found; tests leave all of it as it is."""

    module: Any
    network: ChannelGraph
    groups: Groups
    costs: CostModel


@dataclass(frozen=True)
class Choice:
    """How a plan is made."""

    share: float = 0.4
    round_to: int = 2
    criterion: ImportanceCriterion = ImportanceCriterion.L2
    scope: PruningScope = PruningScope.GLOBAL
    measure: Measure = Measure.FLOPS
    max_ratio: float = 0.9


choices = st.builds(
    Choice,
    st.floats(0.05, 0.6),
    st.sampled_from([1, 2, 3, 4, 8]),
    st.sampled_from([c for c in ImportanceCriterion if c is not ImportanceCriterion.TAYLOR]),
    st.sampled_from(PruningScope),
    st.sampled_from([Measure.CHANNELS, Measure.FLOPS, Measure.PARAMETERS]),
    st.floats(0.7, 0.95),
)


def case_of(module: Any) -> Case:
    """Follow the channels of a live model."""
    network = trace_channels(module, SIZE)
    known = {m.parameter for m in network.dims}
    extra = sum(p.numel() for n, p in module.named_parameters() if n not in known)
    groups = find_groups(network)
    return Case(module, network, groups, CostModel(groups, extra))


@cache
def case(family: str = "yolo11", task: str = "detect") -> Case:
    """A small model of a family, made and followed once."""
    return case_of(tiny_yolo(family, task).model.float().eval())


def plan_with(found: Case, left: dict[str, int], order: Any) -> PrunePlan:
    """The plan that leaves so many units."""
    entries = tuple(GroupDecision(g.name, g.count, left[g.name], tuple(order[g.name])) for g in found.groups.groups)
    costs = found.costs
    return PrunePlan(entries, SIZE, costs(found.groups.full()), costs(left), {"made": "here"}, costs.layers(left))


def plan_for(found: Case, choice: Choice = Choice()) -> PrunePlan:
    """A plan as chosen; where so much cannot go, the most that can."""
    order, ranked = units(found.groups, channel_scores(found.module, found.groups, choice.criterion))
    ladder = Ladder(found.groups, ranked, Limits(choice.round_to, choice.max_ratio), choice.scope)
    try:
        kept = solve(ladder, measure_of(found.costs, choice.measure), choice.share, choice.measure.value)
    except PruneError:
        kept = ladder.kept(len(ladder) - 1)
    return plan_with(found, kept, order)


def orders(plan: PrunePlan) -> dict[str, tuple[tuple[int, ...], ...]]:
    """In which order channels go, by group."""
    return {e.group: e.order for e in plan.entries}


def whole_plan(found: Case) -> PrunePlan:
    """The plan that removes nothing."""
    order = {g.name: tuple(tuple(range(len(a.labels))) for a in g.atoms) for g in found.groups.groups}
    return plan_with(found, found.groups.full(), order)


def edited(plan: PrunePlan, **left: int) -> PrunePlan:
    """The plan with other numbers of units, as somebody with an editor would change it; costs stay."""
    return replace(plan, entries=tuple(replace(e, after=left.get(e.group, e.after)) for e in plan.entries))


def image(seed: int = 0, size: int = 64) -> torch.Tensor:
    """An image that excites every channel, (1, 3, size, size)."""
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


def tensors(value: Any) -> list[torch.Tensor]:
    """Every tensor of a nested output, without the feature maps that a head hands through."""
    if isinstance(value, dict):
        value = [v for k, v in value.items() if k != "feats"]
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in tensors(v)]
    return [value] if isinstance(value, torch.Tensor) else []


def raw(module: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """Raw outputs of every branch of the head."""
    with torch.no_grad():
        return tensors(raw_twin(module)(x))


def predictions(module: Any, x: torch.Tensor) -> torch.Tensor:
    """The first output: decoded predictions, or class probabilities."""
    with torch.no_grad():
        return tensors(module.eval()(x))[0]


def silence(module: nn.Module, network: ChannelGraph, labels: frozenset[int]) -> None:
    """Let layers make zeros for some channels, in place; the layers that read them keep their weights."""
    transposed = {f"{n}.weight" for n, m in module.named_modules() if isinstance(m, nn.ConvTranspose2d)}
    parameters = dict(module.named_parameters())
    for member in network.dims:
        parameter = parameters.get(member.parameter)
        made = 1 if member.parameter in transposed else 0
        if parameter is None or (parameter.dim() > 1 and member.axis != made):
            continue
        gone = [i for i, label in enumerate(member.labels) if label in labels]
        with torch.no_grad():
            parameter.index_fill_(member.axis, torch.tensor(gone, dtype=torch.long), 0.0)


def data_of(plan: PrunePlan) -> dict[str, Any]:
    """The plan as its file holds it, to be damaged."""
    return dict(json.loads(json.dumps(plan.to_dict())))
