"""Ranges and choices as people write them."""

from __future__ import annotations

import pytest

from yoloquant.errors import UsageError
from yoloquant.tuning.dimensions import Choice, Span, is_search, parse_dimension


@pytest.mark.parametrize(
    ("text", "whole", "expected"),
    [
        ("0.2..0.6", False, Span(0.2, 0.6)),
        ("log:1e-5..1e-3", False, Span(1e-5, 1e-3, log=True)),
        ("32..512:32", True, Span(32, 512, step=32, whole=True)),
        ("log:8..512", True, Span(8, 512, log=True, whole=True)),
        ("-1..1:0.5", False, Span(-1, 1, step=0.5)),
        ("32|128|512", True, Choice((32, 128, 512))),
        ("mse | percentile", False, Choice(("mse", "percentile"))),
        ("1e-4|none|true|0.5", False, Choice((1e-4, None, True, 0.5))),
    ],
)
def test_what_is_written_is_read(text: str, whole: bool, expected: Span | Choice) -> None:
    found = parse_dimension("key", text, number=True, whole=whole)
    assert found == expected
    assert parse_dimension("key", found.text, number=True, whole=whole) == expected, "and written again"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.6..0.2", "inverted range.*give key=0.2..0.6"),
        ("log:1e-3..1e-5", "inverted range.*log:1e-05..0.001"),
        ("3..3", "empty range.*give key=3"),
        ("..3", "an end is missing"),
        ("3..", "an end is missing"),
        ("a..3", "'a' is no number"),
        ("1..inf", "'inf' is no number"),
        ("log:0..1", "must start above 0"),
        ("log:1..9:2", "both log: and a step"),
        ("1..2:3", "step of 3; allowed is more than 0, up to 1"),
        ("1..2:-1", "step of -1"),
        ("a||b", "empty choice"),
        ("a|a", "names a twice"),
        ("log:3", "neither a range nor"),
    ],
)
def test_what_is_no_range_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_dimension("key", text, number=True)


def test_whole_numbers_and_names() -> None:
    with pytest.raises(UsageError, match=r"whole numbers, got 8\.5"):
        parse_dimension("images", "8.5..20", number=True, whole=True)
    with pytest.raises(UsageError, match="key is no number; give choices"):
        parse_dimension("key", "0..1", number=False)


@pytest.mark.parametrize("text", ["../data.yaml", "../../set", "best.pt", "32", "auto", ""])
def test_paths_and_plain_values_are_no_searches(text: str) -> None:
    assert not is_search(text, number=False)


@pytest.mark.parametrize("text", ["1..2", "a|b", "log:1..2", "32..512:32", "1e-5..1e-3"])
def test_searches_are_told_by_their_form(text: str) -> None:
    assert is_search(text, number=False)
    assert not is_search(3, number=True) and is_search("a..b", number=True)


@pytest.mark.parametrize(
    ("dimension", "points", "values"),
    [
        (Span(0, 1), 3, [0, 0.5, 1]),
        (Span(1e-5, 1e-3, log=True), 3, [1e-5, 1e-4, 1e-3]),
        (Span(1, 3, whole=True), 5, [1, 2, 3]),
        (Span(1, 100, whole=True), 3, [1, 50, 100]),
        (Span(32, 128, step=32, whole=True), 9, [32, 64, 96, 128]),
        (Span(0, 10, step=1), 3, [0, 5, 10]),
        (Choice(("a", "b", "c")), 2, ["a", "b", "c"]),
    ],
)
def test_a_grid_has_both_ends(dimension: Span | Choice, points: int, values: list[float]) -> None:
    assert dimension.grid(points) == (pytest.approx(values) if isinstance(dimension, Span) else values)


def test_what_lies_in_it() -> None:
    assert Span(1, 2).holds(1.5) and not Span(1, 2).holds(3) and not Span(0, 1).holds(True)
    assert not Span(0, 1).holds("0.5") and not Span(0, 1).holds(None)
    assert Choice(("a", None)).holds(None) and not Choice(("a", "b")).holds("c")
