"""The study over pruning: what it asks ``tune``, what it chooses by, and what it prints. Nothing is trained here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.bench import pruning_study
from tools.benchmark_tune import DEFAULTS
from yoloquant.tuning.space import make_space

OPTIONS = {**DEFAULTS, "data": "d.yaml"}


def trial(number: int, drop: float, stage: str = "again", default: bool = False) -> dict[str, Any]:
    scores = {"map_drop": drop, "multiplications": 4e8}
    values = {"prune.options.amount": 0.5, "prune.arguments.batch": 8}
    about = {"number": number, "stage": stage, "state": "measured", "seconds": 61.2, "default": default}
    return {**about, "values": values, "scores": scores}


def test_the_study_is_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[list[str]] = []

    def command(words: list[str]) -> int:
        calls.append(words)
        trials = [trial(0, 0.01, "search", True), trial(0, 0.02), trial(1, 0.0312, default=True)]
        failed = {**trial(2, 0.0), "state": "failed", "scores": {}, "seconds": None}
        (tmp_path / "trials.json").write_text(json.dumps([*trials, failed]))
        return len(calls) - 1

    monkeypatch.setattr(pruning_study, "command", command)
    pruning_study.search(Path("best.pt"), OPTIONS, tmp_path)
    (words,) = calls
    assert words[:2] == ["tune", "model=best.pt"] and {"prune.epochs=12", f"output={tmp_path}"} < set(words)
    out = capsys.readouterr().out
    assert f"yoloquant {' '.join(words)}" in out
    assert "| again 1, default | 0.5 | 8 | 3.12 | 400 | 61 |" in out and "| again 2 | 0.5 | 8 | failed |  |  |" in out
    with pytest.raises(SystemExit):
        pruning_study.search(Path("best.pt"), OPTIONS, tmp_path)


def test_what_is_searched_is_a_space(tmp_path: Path) -> None:
    given = {**pruning_study.SEARCHED, **pruning_study.FIXED, "prune.epochs": "12"}
    space = make_space({"model": "best.pt", "data": "d.yaml"}, given)
    assert len(space.dimensions) == len(pruning_study.SEARCHED)
    for end in (0, -1):
        assert space.recipe({".".join(p): d.ends[end] for p, d in space.dimensions.items()}).prune is not None


def test_recipes_are_confirmed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[tuple[str, int]] = []

    def confirmed(model: Path, options: Any, folder: Path, which: str, seed: int) -> dict[str, Any]:
        made.append((which, seed))
        return {"gone": 0.581, "float": "+0.10", "int8": "+0.20"}

    monkeypatch.setattr(pruning_study, "_confirmed", confirmed)
    for _ in range(2):
        pruning_study.confirm(Path("best.pt"), {**OPTIONS, "runs": "chosen:0,default:1"}, tmp_path)
    assert made == [("chosen", 0), ("default", 1)]
    assert capsys.readouterr().out.count("| chosen, 0 | 58.1% | +0.10 | +0.20 |") == 2
    for varied in ("prune.criterion=l2", "prune.criterion=l2,prune=0.6"):
        pruning_study.confirm(Path("best.pt"), {**OPTIONS, "runs": "varied:1", "varied": varied}, tmp_path)
    assert made[2:] == [("varied", 1)] * 2, "another variation is another recipe"
    out = capsys.readouterr().out
    assert "| prune.criterion=l2, 1 | 58.1%" in out and "| prune.criterion=l2+prune=0.6, 1 | 58.1%" in out
    with pytest.raises(SystemExit, match="runs=best:0 is not known"):
        pruning_study.confirm(Path("best.pt"), {**OPTIONS, "runs": "best:0"}, tmp_path)


def test_single_values_of_the_defaults_are_varied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the default learning rate hangs on the number of classes
    monkeypatch.setattr("yoloquant.bridge.checkpoint.load_model", lambda *a, **k: SimpleNamespace(names={0: "a"}))
    plain, varied = (pruning_study._content(Path("best.pt"), OPTIONS, tmp_path, w) for w in ("default", "varied"))
    assert (plain["prune"]["options"]["criterion"], varied["prune"]["options"]["criterion"]) == ("taylor", "l2")
    assert (plain["prune"]["arguments"]["batch"], varied["prune"]["arguments"]["batch"]) == (16, 8)
    for content in (plain, varied):
        del content["prune"]["options"]["criterion"], content["prune"]["arguments"]["batch"]
    assert plain == varied, "all else is the same"
