"""Markdown: a table that stays a table whatever the names are, and what a reviewer must see."""

# ruff: noqa: RUF001 - the typographic signs are what the reader should see
from __future__ import annotations

import re
from dataclasses import replace

import pytest

from yoloquant.evaluation.results import GateCheck, Interval, TargetResult, ValidationResult
from yoloquant.report import to_markdown
from yoloquant.types import Verdict

GITHUB_LIMIT = 65_536


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def row(text: str, name: str) -> list[str]:
    return next(cells(line) for line in text.splitlines() if line.startswith(f"| **{name}** "))


def test_verdict_leads(result: ValidationResult) -> None:
    assert to_markdown(result).splitlines()[0] == "### ⛔ yoloquant: ERROR"


def test_table_shows_the_numbers_in_points(result: ValidationResult) -> None:
    text = to_markdown(result)
    assert row(text, "litert") == [
        "**litert**",
        "❌ fail",
        "42.66",
        "+2.13 (+1.43 to +2.83)",
        "0.932",
        "18.2\u00a0ms (0.63×)",
        "3.06\u00a0MB (0.29×)",
    ]
    assert row(text, "tensorrt")[1:] == ["⛔ error", "–", "–", "–", "–", "–"]


def test_every_table_row_has_as_many_cells_as_its_head(result: ValidationResult) -> None:
    width = 0
    for line in to_markdown(result).splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        width = width or len(cells(line))
        assert len(cells(line)) == width, line


def test_names_cannot_inject(result: ValidationResult) -> None:
    text = to_markdown(result)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "@user" not in text
    assert "**bold**" not in text
    allowed = {"<details>", "</details>", "<summary>", "</summary>", "<sub>", "</sub>"}
    assert set(re.findall(r"<[^>]*>", text)) <= allowed


def test_what_needs_attention_is_named(result: ValidationResult) -> None:
    text = to_markdown(result)
    attention = text[text.index("#### Needs attention") : text.index("<details>")]
    assert "900 more images" in attention and "**litert**" in attention and "tensorrt" in attention
    assert "**openvino**" not in attention


def test_unlabelled_run_shows_fidelity_only(unlabelled: ValidationResult) -> None:
    text = to_markdown(unlabelled)
    assert row(text, "openvino")[2:5] == ["–", "–", "0.955"]
    assert "Fidelity loss" in text


def test_nothing_to_say_says_nothing(result: ValidationResult) -> None:
    passed = replace(result, verdict=Verdict.PASS, targets=result.targets[:1])
    assert "Needs attention" not in to_markdown(passed)


def test_no_nan_is_shown(result: ValidationResult) -> None:
    target = result.targets[2]
    assert target.comparison is not None
    nan = float("nan")
    broken = replace(
        target.comparison, map_drop=Interval(nan, nan, nan), fidelity=Interval(nan, nan, nan), per_class_drop={"a": nan}
    )
    check = GateCheck("map_drop", nan, 0.005, Verdict.ERROR)
    odd = replace(target, comparison=broken, checks=(check,), size_bytes=0)
    assert "nan" not in to_markdown(replace(result, targets=(odd,))).lower()


@pytest.mark.parametrize("classes", [0, 1, 1203])
def test_fits_a_comment(result: ValidationResult, classes: int) -> None:
    target = result.targets[2]
    assert target.comparison is not None
    drops = {f"{'long' * 50} {i}": i / 1e4 for i in range(classes)}
    big = replace(target, comparison=replace(target.comparison, per_class_drop=drops, fidelity_per_class={}))
    error = TargetResult("x", "", "", Verdict.ERROR, error="Traceback\n" * 5000, notes=("n" * 9999,) * 50)
    text = to_markdown(replace(result, targets=(*[big] * 6, error)))
    assert len(text) < GITHUB_LIMIT
    assert text.count("<details>") == text.count("</details>") == (6 if classes else 0)
