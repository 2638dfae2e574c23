"""The table of known ways to a wrong verdict."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import check_verdicts  # noqa: E402
from tools.verdicts import drawn, machines  # noqa: E402
from tools.verdicts.bench import Case, Outcome  # noqa: E402


def test_a_case_is_right_by_its_code_and_its_sentence(tmp_path: Path) -> None:
    bench: Any = SimpleNamespace(folder=tmp_path, base=tmp_path / "base")

    def row(code: int, text: str) -> tuple[str, bool]:
        return check_verdicts.run_case(bench, Case("1 x", lambda _: Outcome(code, text), 2, "did you mean"))[:2]

    assert row(2, f"one\nerror: {tmp_path}/a | did you mean b?") == (
        "| 1 x | 2 | error: /a / did you mean b? | yes |",
        True,
    )
    assert row(0, "did you mean") == ("| 1 x | 0 | did you mean | NO |", False)
    assert row(2, "nothing\nof that kind")[1] is False

    def broken(_: object) -> Outcome:
        raise RuntimeError("no such thing")

    line, right, text = check_verdicts.run_case(bench, Case("2 y", broken, 0, "."))
    assert not right and "RuntimeError: no such thing" in text and line.startswith("| 2 y | -1 |")


def test_every_case_has_a_name_of_its_own_and_every_test_named_exists() -> None:
    names = [case.name for cases in check_verdicts.PARTS.values() for case in cases]
    assert len(set(names)) == len(names) > 60
    for _, test in machines.HELD:
        file, _, function = test.partition("::")
        assert f"def {function}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test


@pytest.mark.parametrize("classes", [7, 400])
def test_swapped_classes_never_pass_however_many_there_are(tmp_path: Path, classes: int) -> None:
    found = drawn.verdicts_of_many_classes(tmp_path / "set", classes=classes, images=32)
    assert found == {"same": "pass", "swapped": "fail"}
