"""The fuzz of the command judges rightly, and repeats what it broke."""

from __future__ import annotations

import random

import pytest

from tools import fuzz_inputs as fuzz

CASE = fuzz.Case(0, "gate", "limits", True, ("validate",))


@pytest.mark.parametrize(
    ("code", "text", "wrong"),
    [
        (2, "error: something is wrong", ""),
        (4, "error: it cannot run", ""),
        (3, "verdict: INCONCLUSIVE", ""),
        (1, "verdict: FAIL by gate", ""),
        (1, "FAIL after 0.1 s", ""),
        (None, "Traceback", "an exception"),
        (70, "error: unexpected", "exit code 70"),
        (2, "", "0 error lines"),
        (2, "error: a\nerror: b", "2 error lines"),
        (2, "Traceback (most recent call last)\nerror: a", "a traceback"),
        (1, "oops", "without a failed gate"),
        (0, "verdict: PASS", "meaning was changed"),
    ],
)
def test_what_counts_as_wrong(code: int | None, text: str, wrong: str) -> None:
    found = fuzz.judge(CASE, code, text)
    assert wrong in found and bool(found) == bool(wrong)


def test_mutations_are_repeatable_and_change_something() -> None:
    tree = {"a": [1, {"b": "c"}], "d": None}
    for seed in range(200):
        assert repr(fuzz._tree(random.Random(seed), tree)) == repr(fuzz._tree(random.Random(seed), tree))
        content = bytes(range(200))
        assert fuzz._bytes(random.Random(seed), content)[0] != content
    assert tree == {"a": [1, {"b": "c"}], "d": None}
