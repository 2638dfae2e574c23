"""Predicted times: what was profiled is reproduced, and slow layers go first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_cases import SIZE
from tiny_models import tiny_yolo

from yoloquant.bridge.checkpoint import load_model
from yoloquant.pruning.criteria import ImportanceCriterion
from yoloquant.pruning.layer_latency import LayerLatency, Sample
from yoloquant.pruning.planner import Analysis, compute_importance, ranked
from yoloquant.pruning.prune_options import parse


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    torch.manual_seed(0)
    return compute_importance(load_model(tiny_yolo("yolov8")).module, parse({"criterion": "l2"}), SIZE)


def uniform(analysis: Analysis, share: float) -> dict[str, int]:
    return {g.name: max(1, round(g.count * share)) for g in analysis.groups.groups}


def made_up(analysis: Analysis, kept: dict[str, int], fixed: float, by_macs: float) -> dict[str, float]:
    return {c.weight: fixed + by_macs * c.macs[1] for c in analysis.costs.layers(kept)}


@given(fixed=st.floats(0, 1), by_macs=st.floats(1e-9, 1e-6))
@settings(max_examples=10, deadline=None)
def test_times_that_follow_the_model_are_predicted_anywhere(analysis: Analysis, fixed: float, by_macs: float) -> None:
    seen = [uniform(analysis, s) for s in (1.0, 0.75, 0.5, 0.25)]
    model = LayerLatency(analysis.costs, [Sample(s, made_up(analysis, s, fixed, by_macs)) for s in seen])
    other = uniform(analysis, 0.6)
    wanted = made_up(analysis, other, fixed, by_macs)
    assert model(other) == pytest.approx(sum(wanted.values()), rel=1e-6)
    assert {c.weight: c.ms[1] for c in model.layers(other) if c.ms} == pytest.approx(wanted, rel=1e-6)


def test_a_layer_without_a_time_and_a_time_without_a_layer_do_not_disturb(analysis: Analysis) -> None:
    full = analysis.groups.full()
    times = made_up(analysis, full, 1.0, 0.0)
    missing = next(iter(times))
    model = LayerLatency(analysis.costs, [Sample(full, {**times, "elsewhere": 5.0} | {missing: 0.0})])
    del times[missing]
    less = LayerLatency(analysis.costs, [Sample(full, {**times, "elsewhere": 5.0})])
    assert model(full) == less(full) == pytest.approx(len(times) + 5.0)
    assert next(c for c in less.layers(full) if c.weight == missing).ms is None


def test_units_of_slow_layers_rank_lower(analysis: Analysis) -> None:
    """Of two costs, a unit of the layer that is slower in the second one comes earlier by that one."""
    taylor = replace(analysis, criterion=ImportanceCriterion.TAYLOR)
    names = list(analysis.groups.by_name)
    slow = names[-1]

    def even(kept: dict[str, int]) -> float:
        return float(sum(kept.values()))

    def uneven(kept: dict[str, int]) -> float:
        return even(kept) + 99 * kept[slow]

    before = {u.group: u.score for u in ranked(taylor, even)}  # type: ignore[arg-type]
    after = {u.group: u.score for u in ranked(taylor, uneven)}  # type: ignore[arg-type]
    assert after[slow] / before[slow] < min(after[n] / before[n] for n in names if n != slow)
    assert ranked(analysis, uneven) == analysis.units  # type: ignore[arg-type]
