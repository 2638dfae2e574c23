"""Our files and Ultralytics' in turns: every pair has a row, and one that cannot be opened costs the others nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import benchmark_tasks  # noqa: E402

from tools.bench import beside  # noqa: E402
from tools.bench.beside import beside_table, time_beside  # noqa: E402
from tools.bench.theirs import TheirExport  # noqa: E402
from yoloquant.errors import TargetError  # noqa: E402


class Counted:
    """Counts its inferences, and notes whether it was closed."""

    def __init__(self) -> None:
        self.calls, self.closed = 0, False

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        self.calls += 1
        return (image,)

    def close(self) -> None:
        self.closed = True


def test_pairs_take_turns_and_failures_have_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Counted] = []

    def open_pair(mine: Any, other: TheirExport, threads: int) -> dict[str, Counted]:
        assert mine is None and threads == 1
        if other.runtime == "litert":
            raise TargetError("no such | operator")
        pair = {f"{other.runtime}, ours": Counted(), f"{other.runtime}, Ultralytics": Counted()}
        opened.extend(pair.values())
        return pair

    monkeypatch.setattr(beside, "_opened", open_pair)
    theirs = [TheirExport("onnxruntime", Path("a")), TheirExport("litert", Path("b"))]
    found = time_beside([], theirs, [np.zeros(3)], threads=1, rounds=6, settle_ms=0)
    assert [pair.runtime for pair in found] == ["onnxruntime", "litert"]
    assert found[0].ours is not None and len(found[0].ours.times_ms) == 6
    assert all(one.calls >= 6 and one.closed for one in opened)
    lines = beside_table(found).splitlines()
    assert float(lines[2].rsplit("|", 2)[1]) > 0
    assert "TargetError: no such / operator" in lines[3]


def test_what_is_not_there_is_said() -> None:
    lost, lone = TheirExport("openvino", None, "exit code 1"), TheirExport("onnxruntime", Path("a"))
    found = time_beside([], [lost, lone], [np.zeros(3)], threads=1, rounds=1, settle_ms=0)
    assert "there is no file of ours for openvino" in found[0].error
    assert "there is no file of ours for onnxruntime" in found[1].error


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["scores=false"], "give latency=true and theirs=true"),
        (["scores=false", "latency=true", "theirs=true", "simulated=true"], "give latency=true and theirs=true"),
        (["scores=perhaps"], "allowed are true and false"),
        (["rounds=0"], "a whole number above 0"),
    ],
)
def test_what_cannot_be_timed_is_refused_before_the_work(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark_tasks.main(["model=a.pt", "data=b.yaml", *given]) == 2
    assert said in capsys.readouterr().out
