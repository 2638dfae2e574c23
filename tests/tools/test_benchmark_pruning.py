"""The pruning benchmark: a whole run on a tiny model, and what it computes from its measurements."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from core_models import checkpoint, write_images

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools import benchmark_pruning as tool
from tools.bench.latency import Timing
from tools.bench.pruned import Variant
from yoloquant.errors import UsageError


@pytest.mark.nightly
def test_a_whole_run_and_its_times_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model, data = checkpoint(tmp_path / "tiny.pt"), write_images(tmp_path / "set")
    arguments = [f"model={model}", f"data={data}", "imgsz=64", "batch=4", "epochs=1", "shares=0.3", "methods=l2"]
    arguments += ["narrow=none", "int8=0.3", "prune=round_to=2", "train=workers=0,device=cpu", "threads=1", "rounds=2"]
    arguments += ["targets=onnxruntime", "bootstrap=100", f"output={tmp_path / 'out'}"]
    assert tool.main(arguments) == 0

    assert (tmp_path / "out" / "pruning.md").read_text().strip() in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "pruning.json").read_text())
    assert 0.3 <= result["sizes"]["l2-30"] < 0.5
    labels = [row["method"] for row in result["rows"]]
    assert labels == ["fp32", "l2-30, before training", "l2-30", "unpruned, INT8", "l2-30, INT8"]
    times = result["times"]
    assert set(times) == {f"onnxruntime: {n}" for n in ("unpruned", "unpruned, INT8", "l2-30", "l2-30, INT8")}
    assert times["onnxruntime: unpruned"]["ratio"] == 1 and "ratio_int8" in times["onnxruntime: l2-30, INT8"]

    trained = tmp_path / "out" / "l2-30" / "weights" / "best.pt"
    before = trained.stat().st_mtime_ns
    assert tool.main([*arguments, "stage=time", "time_imgsz=96"]) == 0
    assert trained.stat().st_mtime_ns == before, "a finished run is used again"
    assert json.loads((tmp_path / "out" / "pruning.json").read_text()) == result
    again = json.loads((tmp_path / "out" / "times-96.json").read_text())
    assert again["environment"]["imgsz"] == 96
    assert not again["rows"] and set(again["times"]) == set(times)


def timing(name: str, *ms: float) -> Timing:
    return Timing(name.split(":")[0], list(ms))


def test_ratios_are_to_the_unpruned_model_of_the_same_runtime() -> None:
    timings = {
        "a: unpruned": timing("a: unpruned", 10, 20, 30),
        "a: unpruned, INT8": timing("a", 5, 10, 15),
        "a: l2-50, INT8": timing("a", 2, 4, 6),
        "b: unpruned": timing("b", 1, 1, 1),
        "b: l2-50, INT8": timing("b", 2, 2, 2),
    }
    assert tool._time("a: l2-50, INT8", timings) == {
        **{"runtime": "a", "ms": 4, "ratio": pytest.approx(0.2), "ratio_int8": pytest.approx(0.4)}
    }
    assert "ratio_int8" not in tool._time("b: l2-50, INT8", timings), "there is no unpruned INT8 model to compare with"


def test_what_is_compared() -> None:
    settings = tool.Settings.parse(["shares=0.1,0.2", "methods=taylor", "narrow=0.5", "epochs=7", "base_epochs=3"])
    assert settings.variants == [Variant("taylor", 0.1), Variant("taylor", 0.2), Variant("narrow", 0.5)]
    assert settings.job.narrow_epochs == 10 and settings.variants[1].name == "taylor-20"
    with pytest.raises(UsageError, match="allowed are all, train, time"):
        tool.Settings.parse(["stage=some"])
