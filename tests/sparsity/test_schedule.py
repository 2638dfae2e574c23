"""The schedule only grows, is the paper's cubic where it changes, and ends exactly at the amount."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoloquant.errors import UsageError
from yoloquant.sparsity.schedule import Schedule


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    amount = draw(st.floats(0, 0.999))
    start = draw(st.integers(0, 50))
    end = start + draw(st.integers(0, 300))
    initial = draw(st.floats(0, 1)) * amount
    return Schedule(amount, start, end, draw(st.integers(1, 60)), min(initial, amount))


@given(schedules())
def test_it_grows_and_ends_exactly_at_the_amount(schedule: Schedule) -> None:
    values = [schedule.at(step) for step in range(schedule.end + 20)]
    assert all(a <= b for a, b in itertools.pairwise(values))
    assert all(0 <= v <= schedule.amount for v in values)
    assert all(v == schedule.amount for v in values[schedule.end :])
    assert all(v == 0 for v in values[: schedule.start])


@given(schedules())
def test_it_changes_only_where_it_says(schedule: Schedule) -> None:
    before = schedule.at(0)
    for step in range(1, schedule.end + 20):
        now = schedule.at(step)
        assert now == before or schedule.changes_at(step)
        before = now
    assert schedule.changes_at(schedule.end) and not schedule.changes_at(schedule.end + 1)
    assert schedule.done(schedule.end) and not schedule.done(schedule.end - 1)


def test_it_is_the_papers_cubic() -> None:
    schedule = Schedule(0.8, start=100, end=500, every=100, initial=0.2)
    expected = [0.8 + (0.2 - 0.8) * (1 - n / 4) ** 3 for n in range(5)]
    assert [schedule.at(100 + 100 * n) for n in range(5)] == pytest.approx(expected)
    assert schedule.at(199) == schedule.at(100) == pytest.approx(0.2)


@given(st.integers(1, 5000), st.integers(1, 200))
def test_over_a_run_it_is_done_before_the_run_is(steps: int, changes: int) -> None:
    schedule = Schedule.over(steps, 0.6, changes=changes)
    assert schedule.at(steps) == 0.6 and schedule.end <= 0.75 * steps
    assert Schedule(**schedule.to_plain()) == schedule


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"amount": 1.0}, "below 1"),
        ({"amount": 0.5, "initial": 0.6}, "only grows"),
        ({"amount": 0.5, "start": 5, "end": 4}, "start <= end"),
        ({"amount": 0.5, "start": -1}, "start <= end"),
        ({"amount": 0.5, "end": 4, "every": 0}, "1 or more"),
        ({"amount": 0.5, "end": 4.5}, "whole number"),
    ],
)
def test_nonsense_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Schedule(**arguments)
    with pytest.raises(UsageError, match="1 or more"):
        Schedule.over(0, 0.5)
