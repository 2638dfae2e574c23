"""The sentence about two releases: when it says that there is no difference, and when it does not."""

from __future__ import annotations

import pytest

from yoloquant.evaluation.checks import check_limit
from yoloquant.evaluation.compare import Measurements
from yoloquant.evaluation.conclusion import ALIKE, conclusion
from yoloquant.evaluation.gate import load_gate
from yoloquant.evaluation.results import Comparison, GateCheck, Interval
from yoloquant.runtime.tasks import spec_of
from yoloquant.types import Task, Verdict

METRIC = spec_of(Task.DETECT).metrics[0]
LIMITS = load_gate("release").limits


def checks(low: float, value: float, high: float, fidelity: float = 0.95) -> list[GateCheck]:
    """The release gate's checks of a drop, and of a fidelity with an interval of three points to either side."""
    found = {
        "map_drop": Interval(value, low, high),
        "same_model_fidelity": Interval(fidelity, fidelity - 0.03, min(1.0, fidelity + 0.03)),
    }
    measured = Measurements(Comparison(None, None, found["same_model_fidelity"]), found)
    limits = {name: LIMITS[name] for name in found}
    return [c for name, limit in limits.items() if limit and (c := check_limit(name, limit, measured)) is not None]


@pytest.mark.parametrize(
    ("drop", "says"),
    [
        ((-0.004, 0.001, 0.006), "no difference beyond ±1 point of mAP50-95: the whole 95% interval lies within"),
        ((-0.008, 0.002, 0.012), "no difference beyond ±1 point of mAP50-95 was found; the 95% interval does not excl"),
        ((0.003, 0.021, 0.038), "undecided whether they differ by more than ±1 point of mAP50-95 (+0.30 to +3.80)"),
        ((0.012, 0.021, 0.03), "they differ by more than the gate allows: mAP50-95 drop"),
        ((-0.03, -0.012, 0.002), "undecided whether they differ by more than ±1 point"),
        ((-0.03, -0.02, -0.011), "the new one is better by more than 1 point of mAP50-95 (-3.00 to -1.10)"),
    ],
)
def test_it_names_the_gate_s_own_margin(drop: tuple[float, float, float], says: str) -> None:
    assert conclusion(checks(*drop), METRIC).startswith(says)


def test_releases_that_find_other_things_are_not_called_alike() -> None:
    """However small the drop is: one spoiled layer may cost less mAP than the images can tell."""
    assert conclusion(checks(-0.004, 0.001, 0.006), METRIC).startswith(ALIKE)
    text = conclusion(checks(-0.004, 0.001, 0.006, fidelity=0.77), METRIC)
    assert text == "they differ by more than the gate allows: fidelity to FP32 from the same weights"
    assert conclusion(checks(-0.004, 0.001, 0.006, fidelity=0.87), METRIC).startswith("undecided")


def test_a_gate_without_a_margin_says_nothing_and_the_strictest_of_several_counts() -> None:
    assert conclusion((), METRIC) == ""
    alone = [c for c in checks(0, 0, 0) if c.name != "map_drop"]
    assert conclusion(alone, METRIC) == ""
    wide, close = Interval(0.002, -0.004, 0.008), "map_drop (mine)"
    both = [
        GateCheck("map_drop (release)", 0.002, 0.01, Verdict.PASS, wide),
        GateCheck(close, 0.002, 0.005, Verdict.PASS, wide),
    ]
    assert conclusion(both, METRIC).startswith("no difference beyond ±0.5 points of mAP50-95 was found")
    slow = GateCheck("latency_ratio (mine)", 2.0, 1.1, Verdict.FAIL, None)
    assert conclusion([*both, slow], METRIC).startswith(ALIKE), "it is about accuracy"
