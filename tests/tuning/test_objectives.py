"""Which result is better, and which is chosen."""

from __future__ import annotations

import math

import pytest

from yoloquant.errors import UsageError
from yoloquant.tuning.objectives import Objective, choose, dominates, excess, front, ranked
from yoloquant.tuning.tune_options import TuneOptions

DROP, MACS, FIDELITY = Objective.MAP_DROP, Objective.MULTIPLICATIONS, Objective.FIDELITY
FOUND = [
    (name, {"map_drop": drop, "multiplications": macs})
    for name, drop, macs in [("a", 0.001, 90), ("b", 0.004, 60), ("c", 0.02, 40), ("d", 0.005, 70), ("e", 0.03, 45)]
]


def test_the_front_is_what_nothing_beats() -> None:
    assert front(FOUND, (DROP, MACS)) == ["a", "b", "c"]
    assert front([*FOUND, ("again", dict(FOUND[0][1]))], (DROP, MACS)) == ["a", "b", "c"], "one of equals is enough"
    assert front(FOUND, (MACS,)) == ["c"] and front([], (MACS,)) == []
    assert dominates([1, 1], [1, 2]) and not dominates([1, 2], [1, 2]) and not dominates([0, 3], [1, 2])


def test_ranking_puts_the_limit_first_and_the_front_before_what_it_beats() -> None:
    assert ranked(FOUND, (DROP, MACS), None) == ["a", "b", "c", "d", "e"]
    assert ranked(FOUND, (MACS, DROP), 0.005) == ["b", "a", "d", "c", "e"]
    assert ranked([("x", {"fidelity": 0.8}), ("y", {"fidelity": 0.9})], (FIDELITY,), None) == ["y", "x"]


@pytest.mark.parametrize(
    ("objectives", "drop", "chosen"),
    [
        ((DROP, MACS), None, "a"),  # without a limit the first objective decides
        ((MACS, DROP), None, "c"),
        ((DROP, MACS), 0.005, "b"),  # within the limit, what the limit does not hold already
        ((MACS,), 0.02, "c"),
        ((DROP,), 0.005, "a"),
        ((DROP, MACS), 0.0005, "a"),  # nothing is within: the least that is over
    ],
)
def test_what_is_chosen(objectives: tuple[Objective, ...], drop: float | None, chosen: str) -> None:
    assert choose(FOUND, objectives, drop) == chosen
    assert choose([], objectives, drop) is None


def test_a_drop_that_is_not_a_number_is_over_the_limit() -> None:
    assert excess({"map_drop": math.nan}, 0.01) == math.inf and excess({"map_drop": 0.01}, 0.01) == 0
    assert excess({}, None) == 0 and excess({"map_drop": 0.03}, 0.01) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"objective": "size,size"}, "names one twice"),
        ({"objective": "size"}, "would choose the model that finds nothing; add map_drop or fidelity"),
        ({"objective": "speed"}, "allowed are fidelity, map_drop, latency, size, multiplications"),
        ({"objective": ""}, "objective= names nothing"),
        ({"objective": "fidelity,size", "pruner": "asha"}, "pruner=asha needs one objective, and there are 2"),
        ({"address": "auto"}, "address=auto is for on=ray"),
        ({"trials": 0}, "trials=0 is not supported; allowed is a whole number from 1"),
        ({"few": 2}, "few=2 is not supported"),
        ({"sampler": "bayes"}, "allowed are grid, random, tpe, nsga2"),
    ],
)
def test_studies_that_make_no_sense_are_refused(keys: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TuneOptions(**keys)  # type: ignore[arg-type]


def test_a_limit_is_measured_too() -> None:
    options = TuneOptions(objective="size", drop=0.01)  # type: ignore[arg-type]
    assert options.measured == (Objective.SIZE, DROP) and options.looks_twice
    assert TuneOptions(objective="map_drop", drop=0.01, few=1).measured == (DROP,)  # type: ignore[arg-type]
