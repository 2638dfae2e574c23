"""The cost of training: a whole run on a tiny model, and the parts on known numbers."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from core_models import checkpoint, write_images  # noqa: E402

from tools.bench.training_cost import FLOAT, VARIANTS, Cost, Rounds, Variant, measure, ratios, same_images  # noqa: E402
from tools.bench.training_worker import Job, Turn  # noqa: E402
from yoloquant.errors import UsageError  # noqa: E402


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tools.benchmark_training", ROOT / "tools" / "benchmark_training.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _cost(*seconds: float, images: tuple[int, ...] = (1,), peak: float = 100.0, error: str = "") -> Cost:
    turns = [Turn([s], [2 * s], [{"forward": s}], list(images), peak, 60.0) for s in seconds]
    return Cost(turns, error)


@pytest.mark.nightly
def test_a_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tool, out = _tool(), tmp_path / "out"
    model, data = checkpoint(tmp_path / "tiny.pt"), write_images(tmp_path / "set")
    arguments = [
        f"model={model}",
        f"data={data}",
        "imgsz=64",
        "batch=2",
        "steps=2",
        "rounds=3",
        "warmup=1",
        "threads=1",
    ]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert tool.main([*arguments, "threads=1", "images=8", "variants=distill,both", f"output={out}"]) == 0

    text = (out / "training.md").read_text()
    assert text.strip() in capsys.readouterr().out
    result = json.loads((out / "training.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == ["float", "distill", "both"]
    assert result["same_images"], "augmentation drew other numbers in one of the processes"
    assert rows["float"]["time_ratio"] == rows["float"]["busy_ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    for row in rows.values():
        assert len(row["step_ms"]) == 3 and all(t > 0 for t in row["step_ms"])
        assert set(row["phases_ms"]) == {"forward", "backward", "optimizer"}
        assert sum(row["phases_ms"].values()) == pytest.approx(sum(row["step_ms"]) / 3, rel=2)
        if Path("/proc/self/clear_refs").exists():
            assert row["peak_mb"] > row["base_mb"] > 0 and row["memory_ratio"] > 0
        assert f"| {row['title']} |" in text
    assert not list((out / "runs").rglob("*.pt")), "a measured run saved a checkpoint"
    assert "Goals for the default training: step time" in text


@pytest.mark.nightly
def test_a_failing_process_is_described(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no checkpoint")
    found = measure(
        {FLOAT: Job(broken, {"data": "none.yaml"}, None, 1, tmp_path / "float.log")}, Rounds(1, 1, 2), lambda *_: None
    )
    assert "float.log" in found[FLOAT].error and not found[FLOAT].rounds
    assert (tmp_path / "float.log").read_text()


def test_ratios_are_taken_within_a_round() -> None:
    fast, slow = _cost(1.0, 2.0, 4.0), _cost(1.5, 4.0, 4.0)  # the machine slowed down fourfold
    assert ratios(slow.times, fast.times) == (1.5, 1.0, 2.0)
    assert ratios(slow.busy, fast.busy) == (1.5, 1.0, 2.0)
    with pytest.raises(ValueError):
        ratios(slow.times, fast.times[:2])


def test_memory_is_the_highest_peak() -> None:
    cost = _cost(1.0, 1.0)
    cost.rounds[1].peak_mb = 160.0
    assert (cost.peak_mb, cost.above_mb) == (160.0, 100.0)
    assert math.isnan(Cost([Turn([1.0])]).peak_mb)


def test_everybody_must_see_the_same_images() -> None:
    one, other = _cost(1.0, images=(1, 2)), _cost(1.0, images=(2, 1))
    assert same_images({"a": one, "b": _cost(2.0, images=(1, 2))})
    assert not same_images({"a": one, "b": other})
    assert same_images({"a": one, "b": replace(other, error="it failed")}), "what failed does not count"


def test_a_missing_package_is_named() -> None:
    assert Variant("x", needs=("no_such_module_at_all", "no-such-package")).missing == "no-such-package"
    assert Variant("x", needs=("json", "json")).missing == ""
    tool = _tool()
    row = tool._row("native", None, _cost(1.0), "nvidia-modelopt")
    assert tool._cells(row)[:2] == (VARIANTS["native"].title, "not installed")
    assert len(tool._cells(row)) == len(tool._cells(tool._row("distill", _cost(1.5), _cost(1.0), "")))


def test_goals_compare_the_default_training() -> None:
    tool = _tool()
    rows = [tool._row("distill", _cost(1.5, peak=140.0), _cost(1.0), "")]
    assert rows[0]["time_ratio"]["median"] == 1.5 and rows[0]["memory_ratio"] == 1.4
    assert rows[0]["memory_ratio_above_base"] == 2.0
    assert tool._goal(rows).count("met") == 2
    missed = [tool._row("distill", _cost(1.7, peak=160.0), _cost(1.0), "")]
    assert tool._goal(missed).count("missed") == 2
    assert "not measured" in tool._goal([])


def test_arguments_are_checked() -> None:
    settings = _tool().Settings.parse(["variants=distill,native", "amp=bf16", "--rounds", "4"])
    assert settings.variants == ("float", "distill", "native"), "the float training is always there"
    assert settings.amp == "bf16" and settings.plan == Rounds(3, 2, 4)
    for wrong in ("variants=fast", "amp=maybe"):
        with pytest.raises(UsageError, match="allowed are"):
            _tool().Settings.parse([wrong])


def test_only_what_makes_a_variant_differs(tmp_path: Path) -> None:
    tool = _tool()
    settings = tool.Settings.parse([f"output={tmp_path}"])
    jobs = {name: tool.job(settings, name, tmp_path / "m.pt") for name in VARIANTS}
    common = {k: v for k, v in jobs["float"].arguments.items() if k != "name"}
    for name, job in jobs.items():
        rest = {k: v for k, v in job.arguments.items() if k not in {"name", *VARIANTS[name].arguments}}
        assert rest == common and job.threads == settings.threads
    assert [name for name, job in jobs.items() if job.qat is None] == ["float", "native"]
    assert jobs["native"].arguments["quantize"] == 8
