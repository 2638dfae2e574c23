"""What training's options make of what was left open."""

from __future__ import annotations

from typing import Any

import pytest

from yoloquant.training.qat.qat_options import QATOptions, host_defaults, parse


@pytest.mark.parametrize(
    ("given", "features"),
    [
        ({}, False),
        ({"weight_bits": 4}, True),
        ({"activation_bits": 6}, True),
        ({"weight_bits": 4, "loss": "detect"}, False),  # no teacher at all
        ({"weight_bits": 4, "teacher": "larger.pt"}, False),  # its features may be of another width
    ],
)
def test_features_are_distilled_below_eight_bits(given: dict[str, Any], features: bool) -> None:
    found = parse(given)
    assert bool(found.feature_weight) is features
    assert parse(found.to_dict()) == found, "stored settings mean the same"
    assert parse({**given, "feature_weight": 0.0}).feature_weight == 0
    assert parse({**given, "feature_weight": 0.5}).feature_weight == 0.5


def test_what_the_caller_names_is_left_alone() -> None:
    defaults = host_defaults(QATOptions(), {"batch": 8, "lr0": 0.5, "epochs": 4})
    assert not {"batch", "lr0", "epochs"} & set(defaults) and defaults["nbs"] == 8
    coarse = host_defaults(parse({"weight_bits": 4}), {})
    assert coarse["lr0"] > host_defaults(QATOptions(), {})["lr0"] and coarse["mosaic"] == 1.0
