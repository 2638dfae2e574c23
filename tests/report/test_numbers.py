"""Numbers for people."""

# ruff: noqa: RUF001 - the typographic signs are what the reader should see
from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoloquant.evaluation.results import GateCheck, Interval, ValidationResult
from yoloquant.report import numbers
from yoloquant.report.sentences import (
    check_interval,
    check_limit,
    check_value,
    fidelity_limit,
    higher_is_better,
    map_drop_limit,
)
from yoloquant.report.text import shorten
from yoloquant.types import Verdict

FORMATTERS = (numbers.points, numbers.fixed, numbers.megabytes, numbers.milliseconds, numbers.ratio, numbers.duration)


@pytest.mark.parametrize("formatter", FORMATTERS)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_a_dash(formatter: object, value: float | None) -> None:
    assert callable(formatter)
    assert formatter(value) == numbers.DASH


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (numbers.points(0.44791), "44.79"),
        (numbers.points(0.005, signed=True), "+0.50"),
        (numbers.points(-0.0021, signed=True), "−0.21"),
        (numbers.points(-0.000001, signed=True), "0.00"),
        (numbers.points_interval(Interval(0.0, -0.001, 0.0081)), "−0.10 to +0.81"),
        (numbers.points_interval(Interval(0.5, 0.4791, 0.5523), signed=False), "47.91 to 55.23"),
        (numbers.points_interval(Interval(0.0, math.nan, 0.1)), ""),
        (numbers.megabytes(3_060_000), "3.06\u00a0MB"),
        (numbers.megabytes(0), numbers.DASH),
        (numbers.milliseconds(18.72), "18.7\u00a0ms"),
        (numbers.milliseconds(1.234), "1.23\u00a0ms"),
        (numbers.ratio(0.526), "0.53×"),
        (numbers.duration(125), "2\u00a0min 5\u00a0s"),
        (check_value("map_drop", 0.0213), "+2.13 points"),
        (check_value("latency_ratio", 0.75), "0.75×"),
        (check_value("confidence_shift", -0.04), "−0.040"),
        (check_limit(GateCheck("fidelity", 0.9, 0.945, Verdict.FAIL)), "≥ 0.945"),
        (check_limit(GateCheck("map_drop", 0.01, 0.005, Verdict.FAIL)), "≤ 0.50 points"),
    ],
)
def test_formats(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize(
    ("name", "higher"),
    [("map_drop", False), ("fidelity", True), ("fidelity_drop", False), ("size_ratio", False), ("box_iou", True)],
)
def test_side_of_a_limit(name: str, higher: bool) -> None:
    assert higher_is_better(name) is higher


def test_the_name_of_a_gate_changes_no_unit_and_no_side(result: ValidationResult) -> None:
    """Where several gates judge, theirs stand behind the names of their limits, whatever they are called."""
    fidelity = GateCheck("fidelity (no drop, low ratio)", 0.9, 0.945, Verdict.FAIL, Interval(0.9, 0.89, 0.91))
    assert check_limit(fidelity) == "≥ 0.945" and check_interval(fidelity) == "0.890 to 0.910"
    drop = GateCheck("map_drop (fidelity)", 0.02, 0.01, Verdict.FAIL, Interval(0.02, 0.01, 0.03))
    assert check_limit(drop) == "≤ 1.00 points" and check_interval(drop) == "+1.00 to +3.00"
    assert check_value(GateCheck("min_boxes (mine)", 7, 10, Verdict.INCONCLUSIVE).metric, 7) == "7"
    looser = replace(drop, name="map_drop (loose)", limit=0.02), replace(fidelity, name="fidelity (loose)", limit=0.9)
    target = replace(result.targets[0], checks=(*looser, drop, fidelity))
    assert (map_drop_limit(target), fidelity_limit(target)) == (0.01, 0.945), "the strictest is drawn"


@given(st.floats(-1e6, 1e6), st.integers(1, 4))
def test_fixed_reads_back(value: float, digits: int) -> None:
    text = numbers.fixed(value, digits).replace(numbers.MINUS, "-").replace("\u202f", "")
    assert float(text) == pytest.approx(value, abs=0.51 * 10**-digits)


@given(st.text(max_size=200), st.integers(20, 100))
def test_shorten_keeps_the_limit_and_the_end(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short) <= limit
    assert text.endswith(short[-5:])
