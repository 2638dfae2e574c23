"""What an analysis tells: order, protection, tables, files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoloquant.errors import UsageError
from yoloquant.pruning.solver import Limits
from yoloquant.sensitivity import Sensitivity, SensitivityMeasurement

DROPS = st.floats(-1, 10, allow_nan=False) | st.none()


def prune(**drops: list[float | None]) -> Sensitivity:
    """Groups with their drops at 25, 50 and 75 %."""
    points = tuple(
        SensitivityMeasurement(name, ratio, (ratio,), drop, drop, "mask")
        for name, values in drops.items()
        for ratio, drop in zip((0.25, 0.5, 0.75), values, strict=False)
    )
    return Sensitivity("prune", "distill", 0.0, points, {"model": "abc"})


FOUND = prune(a=[0.0, 0.01, 0.02], b=[0.5, 1.0, 2.0], c=[0.01, 0.2, 0.1], d=[0.0, None, 0.0])


def test_protection_stops_at_the_first_ratio_that_loses_too_much() -> None:
    assert FOUND.protected(0.1) == {"a": 0.75, "b": 0.0, "c": 0.25, "d": 0.25}
    assert FOUND.protected(0.0) == {"a": 0.25, "b": 0.0, "c": 0.0, "d": 0.25}
    limits = Limits(protected=FOUND.protected(0.1))
    assert [limits.share(n) for n in "abc"] == [0.75, 0.0, 0.25]


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(DROPS, min_size=3, max_size=3), min_size=1), st.floats(0, 5))
def test_protection_never_allows_what_was_not_measured_within_the_limit(
    drops: dict[str, list[float | None]], limit: float
) -> None:
    found = prune(**drops)
    for name, share in found.protected(limit).items():
        measured = {p.ratio: p.loss for p in found.parts[name]}
        assert share == 0 or measured[share] <= limit
        assert all(loss <= limit for ratio, loss in measured.items() if ratio is not None and ratio <= share)
        later = [loss for ratio, loss in sorted(measured.items()) if ratio is not None and ratio > share]
        assert not later or later[0] > limit  # and it is the largest such
        assert found.protected(limit + 1)[name] >= share


@pytest.mark.parametrize("limit", [-0.1, math.nan])
def test_a_limit_that_is_none(limit: float) -> None:
    with pytest.raises(UsageError, match="limit="):
        FOUND.protected(limit)


def test_quantization_protects_no_group() -> None:
    found = Sensitivity("quant", "map", 0.4, (SensitivityMeasurement("model.0", None, (), 0.3, 0.1, "quantize"),))
    with pytest.raises(UsageError, match="kind=prune"):
        found.protected(0.1)
    assert found.table()[1:] == ["layer or point    drop", "model.0         0.1000"]


def test_the_most_sensitive_come_first() -> None:
    assert [name for name, _ in FOUND.ranking()] == ["d", "b", "c", "a"]
    table = FOUND.table(2)
    assert table[2].split() == ["d", "0.0000", "not", "finite", "0.0000"]
    assert table[-1] == "... and 2 that are less sensitive"
    assert str(FOUND).count("\n") == 5


def test_a_rounded_ratio_is_named_and_fills_its_columns() -> None:
    points = (SensitivityMeasurement("a", 0.5, (0.25, 0.5, 0.75), 1.0, 1.0, "mask"),)
    found = Sensitivity("prune", "map", 0.4, points)
    assert found.table()[2].split() == ["a", "1.0000", "(-50%)", "1.0000", "1.0000", "(-50%)"]
    assert found.protected(2.0) == {"a": 0.5}


def test_a_saved_analysis_is_the_same(tmp_path: Path) -> None:
    assert Sensitivity.load(FOUND.save(tmp_path / "new" / "found.json")) == FOUND


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"kind": "other"},
        {"baseline": None},
        {"points": [{}]},
        {"points": [{"name": "a", "ratio": 0.5, "asked": [0.5], "score": 1, "drop": math.nan, "how": ""}]},
        {"points": [{"name": "a", "ratio": None, "asked": [], "score": 1, "drop": 1, "how": ""}]},
        {"points": 3},
        None,
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, change: dict[str, object] | None) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps({**FOUND.to_dict(), **change}) if change is not None else "[]")
    with pytest.raises(UsageError, match="analysis"):
        Sensitivity.load(path)


@pytest.mark.parametrize("text", [None, "", "{", "[" * 100_000])
def test_a_missing_or_broken_file_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "found.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match="cannot be read"):
        Sensitivity.load(path)
