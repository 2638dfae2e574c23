"""What a user may say about pruning."""

from __future__ import annotations

from typing import Any

import pytest

from yoloquant.errors import UsageError
from yoloquant.pruning.criteria import ImportanceCriterion, Limits, Measure, PruningKind
from yoloquant.pruning.prune_options import PruneOptions, parse


def test_a_number_a_text_and_a_mapping_say_the_same() -> None:
    assert parse(0.3) == parse("0.3") == parse({"amount": 0.3}) == parse(PruneOptions(amount=0.3))


def test_choices_are_read_by_name_and_patterns_from_a_comma_list() -> None:
    found = parse({"target": "parameters", "criterion": "taylor", "ignored": "model.0, model.2.*"})
    assert found.target is Measure.PARAMETERS and found.criterion is ImportanceCriterion.TAYLOR
    assert found.ignored == ("model.0", "model.2.*")
    assert parse(found.to_dict()) == found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"amount": 0}, "between 0 and 1"),
        ({"amount": 1.5}, "between 0 and 1"),
        ({"criterion": "magic"}, "allowed are l1, l2"),
        ({"ratio": 0.5}, "no option 'ratio'"),
        ({"max_ratio": 1.0}, "above 0 and below 1"),
        ({"round_to": -1}, "a whole number from 1"),
        ({"steps": 0}, "a whole number from 1"),
        ({"kind": "2:4", "target": "latency"}, "belong to kind=structured"),
        ({"permutation": "rows"}, "none, channel"),
        ({"detect_weight": -1.0}, "a number from 0"),
        ("much", "allowed is the share to remove"),
        (True, "not supported"),
    ],
)
def test_bad_options_say_what_is_allowed(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(value)


def test_an_open_criterion_follows_the_data() -> None:
    assert PruneOptions().measured_by(labels=True) is ImportanceCriterion.TAYLOR
    assert PruneOptions().measured_by(labels=False) is ImportanceCriterion.L2
    assert PruneOptions(criterion=ImportanceCriterion.BN).measured_by(labels=True) is ImportanceCriterion.BN


def test_the_strictest_share_counts_for_a_layer() -> None:
    limits = Limits(max_ratio=0.8, ignored=("model.0",), protected={"model.2*": 0.3})
    assert limits.share("model.0") == 0.0
    assert limits.share("model.2.cv1") == 0.3
    assert limits.share("model.9") == 0.8
    assert PruningKind("2:4") is PruningKind.NM
