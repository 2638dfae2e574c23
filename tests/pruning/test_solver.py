"""From importance to numbers: targets are met, limits hold, and errors name the nearest that can be done."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pruning_cases import case

from yoloquant.errors import PruneError, UsageError
from yoloquant.pruning.criteria import ImportanceCriterion, Limits, Measure, PruningScope
from yoloquant.pruning.importance import channel_scores, units
from yoloquant.pruning.solver import Ladder, measure_of, solve

FAMILY = "yolov8"
MEASURES = [Measure.CHANNELS, Measure.FLOPS, Measure.PARAMETERS]
some = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def ladder(
    limits: Limits, scope: PruningScope = PruningScope.GLOBAL, criterion: ImportanceCriterion = ImportanceCriterion.L2
) -> Ladder:
    found = case(FAMILY)
    _, ranked = units(found.groups, channel_scores(found.module, found.groups, criterion))
    return Ladder(found.groups, ranked, limits, scope)


@pytest.mark.parametrize("scope", list(PruningScope))
@pytest.mark.parametrize("round_to", [1, 8])
def test_no_step_gives_a_channel_back(scope: PruningScope, round_to: int) -> None:
    steps = ladder(Limits(round_to, 0.9), scope)
    rungs = [steps.kept(i) for i in range(0, len(steps), 9)]
    assert rungs[0] == case(FAMILY).groups.full()
    for more, less in pairwise(rungs):
        assert all(less[name] <= more[name] for name in more)
    assert rungs[-1] != rungs[0]


@given(st.floats(0.02, 0.6), st.sampled_from(MEASURES), st.sampled_from(PruningScope), st.sampled_from([1, 2, 4]))
@some
def test_a_target_is_met_by_the_mildest_step(
    share: float, measure: Measure, scope: PruningScope, round_to: int
) -> None:
    steps = ladder(Limits(round_to, 0.95), scope)
    cost = measure_of(case(FAMILY).costs, measure)
    kept = solve(steps, cost, share, measure.value)
    goal = cost(steps.kept(0)) * (1 - share)
    assert cost(kept) <= goal
    step = next(i for i in range(len(steps)) if steps.kept(i) == kept)
    assert cost(steps.kept(step - 1)) > goal


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("max_ratio", [0.2, 0.5, 0.77])
def test_what_is_out_of_reach_names_the_nearest(measure: Measure, max_ratio: float) -> None:
    steps = ladder(Limits(2, max_ratio))
    cost = measure_of(case(FAMILY).costs, measure)
    with pytest.raises(PruneError, match="cannot be removed: the most") as caught:
        solve(steps, cost, 0.99, measure.value)
    found = re.search(r"leave is ([\d.]+)%; ask for that", str(caught.value))
    assert found is not None
    nearest = float(found.group(1)) / 100
    kept = solve(steps, cost, nearest, measure.value)  # asking for exactly that works
    assert cost(kept) <= cost(steps.kept(0)) * (1 - nearest)
    with pytest.raises(PruneError):
        solve(steps, cost, nearest + 0.0011, measure.value)


def test_nothing_to_remove_offers_nothing() -> None:
    with pytest.raises(PruneError, match=r"leave is 0\.0%; raise max_ratio"):
        solve(ladder(Limits(ignored=("*",))), measure_of(case(FAMILY).costs, Measure.FLOPS), 0.1, "flops")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_shares_lie_between_nothing_and_all(share: float) -> None:
    with pytest.raises(UsageError, match="lies between 0 and 1"):
        solve(ladder(Limits()), measure_of(case(FAMILY).costs, Measure.FLOPS), share, "flops")


def test_a_uniform_scope_takes_the_same_share_of_every_group() -> None:
    steps = ladder(Limits(1, 0.9), PruningScope.UNIFORM)
    full = case(FAMILY).groups.full()
    kept = solve(steps, measure_of(case(FAMILY).costs, Measure.CHANNELS), 0.5, "channels")
    assert all(abs(n / full[name] - 0.5) < 1 / full[name] + 0.05 for name, n in kept.items())


@given(st.sampled_from([1, 2, 3, 4, 8]), st.floats(0.1, 0.9), st.sampled_from(PruningScope))
@some
def test_limits_hold_at_the_last_step(round_to: int, max_ratio: float, scope: PruningScope) -> None:
    steps = ladder(Limits(round_to, max_ratio), scope)
    kept = steps.kept(len(steps) - 1)
    for group in case(FAMILY).groups.groups:
        assert group.count * (1 - max_ratio) - 1e-6 <= kept[group.name] <= group.count
        assert kept[group.name] >= 1
        if kept[group.name] < group.count:
            assert all(kept[group.name] * a.step % round_to == 0 for a in group.atoms)


def test_ignored_and_protected_layers() -> None:
    full = case(FAMILY).groups.full()
    limits = Limits(1, 0.9, ignored=("model.0", "model.2.*"), protected={"model.4.*": 0.25, "model.1": 0.0})
    steps = ladder(limits)
    kept = steps.kept(len(steps) - 1)
    for name, n in kept.items():
        if name in {"model.0", "model.1"} or name.startswith("model.2."):
            assert n == full[name]
        elif name.startswith("model.4."):
            assert full[name] * 0.75 <= n < full[name]
    assert kept["model.3"] < full["model.3"] * 0.75


@pytest.mark.parametrize("limits", [Limits(ignored=("model.99",)), Limits(protected={"nothing*": 0.5})])
def test_a_pattern_without_a_layer_is_refused(limits: Limits) -> None:
    with pytest.raises(UsageError, match=r"matches no prunable layer; they are model\.0"):
        ladder(limits)


@pytest.mark.parametrize("limits", [{"round_to": 0}, {"max_ratio": 0.0}, {"max_ratio": 1.0}, {"max_ratio": 2.0}])
def test_limits_that_make_no_sense_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"round_to=0|would empty a layer"):
        Limits(**limits)  # type: ignore[arg-type]
