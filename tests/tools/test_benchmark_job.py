"""The cost of whole jobs: what is run, how it is counted, and what is told of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import benchmark_job as tool  # noqa: E402
from tools.bench.checkout import JobCost, measured  # noqa: E402

BUSY = "import subprocess, sys; x = [sum(range(4000)) for _ in range({0})]; {1}"


def busy(rounds: int, *, inside: int = 0) -> list[str]:
    """A process that computes, and may start another that does."""
    child = f"subprocess.run([sys.executable, '-c', {BUSY.format(inside, '')!r}])" if inside else ""
    return [sys.executable, "-c", BUSY.format(rounds, child)]


def test_processor_time_counts_children_and_not_what_ran_before(tmp_path: Path) -> None:
    idle, alone, both = (measured(line, tmp_path / "log") for line in (busy(0), busy(4000), busy(0, inside=4000)))
    assert alone.cpu > 2 * idle.cpu and both.cpu > 2 * idle.cpu, (idle, alone, both)
    assert measured(busy(0), tmp_path / "log").cpu < alone.cpu, "an earlier process is in it"
    assert idle.peak_mb > 2 and alone.wall > 0


def test_exit_code_and_output_are_kept(tmp_path: Path) -> None:
    found = measured([sys.executable, "-c", "print('hello'); raise SystemExit(3)"], tmp_path / "log")
    assert found.code == 3 and (tmp_path / "log").read_text() == "hello\n"


def test_everybody_does_the_same(tmp_path: Path) -> None:
    values = {**tool.DEFAULTS, "against": str(ROOT), "theirs": "true", "targets": "litert,onnxruntime", "images": "8"}
    quantize, run = (tool.lines(values, verb, tmp_path) for verb in tool.VERBS)
    assert list(quantize) == [tool.OURS, tool.AGAINST] and list(run) == [*quantize, tool.THEIRS]
    for found in (quantize, run):
        mine, others = ([w for w in found[n][0] if not w.startswith("output=")] for n in (tool.OURS, tool.AGAINST))
        assert mine == others and "images=8" in mine
    assert "targets=litert,onnxruntime" in run[tool.OURS][0] and "targets" not in " ".join(quantize[tool.OURS][0])
    assert run[tool.THEIRS][0][-1] == "litert,onnx"


def test_ratios_are_taken_within_a_turn() -> None:
    def costs(*cpu: float) -> list[JobCost]:
        return [JobCost(c, 2 * c, 100.0, 0) for c in cpu]

    found = {tool.OURS: costs(1, 2, 4), tool.AGAINST: costs(2, 4, 8)}
    assert tool.ratio(found, tool.AGAINST, "cpu") == 0.5
    assert tool.ratio(found, tool.THEIRS, "cpu") is None
    text = tool.markdown({**tool.DEFAULTS, "rounds": "3"}, {"quantize": found})
    assert "| quantize | against | 4.0 | 8.0 | 100.0 | 0.50 | 0.50 | 1.00 |" in text


def test_the_whole_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    codes = iter((0, 0, 1))
    made = [([sys.executable, "-c", f"raise SystemExit({code})"], {}) for code in codes]
    jobs = iter(({tool.OURS: made[0]}, {tool.OURS: made[1]}, {tool.OURS: made[2]}))
    monkeypatch.setattr(tool, "lines", lambda *_: next(jobs))
    assert tool.main(["verbs=quantize", f"output={tmp_path}", "rounds=2"]) == 0
    assert len(json.loads((tmp_path / "job.json").read_text())["results"]["quantize"][tool.OURS]) == 2
    assert (tmp_path / "job.md").read_text() in capsys.readouterr().out
    assert tool.main(["verbs=quantize", f"output={tmp_path}"]) == 1, "a command failed"
    assert tool.main(["verbs=export"]) == 2 and tool.main([f"against={tmp_path}"]) == 2
