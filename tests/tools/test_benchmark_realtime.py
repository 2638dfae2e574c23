"""The real-time benchmark: a whole run on a tiny model, and the figures on known times."""

from __future__ import annotations

import importlib.util
import json
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import cv2
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from core_models import checkpoint, write_images  # noqa: E402

from tools.bench.realtime import Row, table  # noqa: E402
from tools.bench.realtime_video import write_video  # noqa: E402
from tools.bench.realtime_worker import OURS, PURE, SHARED, THEIRS, Pass  # noqa: E402


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tools.benchmark_realtime", ROOT / "tools" / "benchmark_realtime.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.nightly
def test_a_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool, out = _tool(), tmp_path / "out"
    model, data = checkpoint(tmp_path / "tiny.pt"), write_images(tmp_path / "set")
    arguments = [f"model={model}", f"data={data}", "imgsz=64", "images=8", "frames=12", "rounds=2", "threads=2"]
    assert tool.main([*arguments, "targets=onnxruntime", "size=96x64", "codec=MJPG", f"output={out}"]) == 0
    assert (out / "realtime.md").read_text().strip() in capsys.readouterr().out
    (row,) = json.loads((out / "realtime.json").read_text())["rows"]
    assert {kind: len(passes) for kind, passes in row["passes"].items()} == dict.fromkeys(
        (PURE, SHARED, OURS, THEIRS), 2
    )
    assert all(p["frames"] == 12 and p["cpu"] > 0 for passes in row["passes"].values() for p in passes)
    assert row["overhead"] > 0 and row["speed"] > 0 and not row["error"]
    assert {kind: passes[0]["shares"] for kind, passes in row["passes"].items()} == {
        **{PURE: [2], SHARED: [1, 1], OURS: [1, 1], THEIRS: []}
    }


def test_ratios_are_taken_within_a_round() -> None:
    row = Row("x")
    for slower in (1.0, 5.0, 1.0):  # the machine was busy in the second round
        row.passes[PURE].append(Pass(1.5 * slower, 2.4, 10, 0, (2,)))
        row.passes[SHARED].append(Pass(1.0 * slower, 2.0, 10, 0, (1, 1)))
        row.passes[OURS].append(Pass(1.2 * slower, 2.1, 10, 7, (1, 1)))
        row.passes[THEIRS].append(Pass(1.8 * slower, 4.2, 10, 7))
    assert row.overhead == pytest.approx(1.2) and row.speed == pytest.approx(1.5)
    assert row.single_overhead == pytest.approx(0.8)
    assert row.ratio(THEIRS, OURS, cpu=True) == pytest.approx(2.0)
    assert row.milliseconds(OURS) == pytest.approx(120)
    environment = {
        **dict.fromkeys(("model", "imgsz", "frames", "codec", "images", "data", "conf", "threads", "rounds"), 1),
        **{"cpu": "c", "affinity": [0, 1], "cores": 4, "load": 1.0, "load_after": 1.0, "size": (64, 48)},
        "precision": "f32",
    }
    text = table(environment, [row, Row("broken", error="out of memory")])
    assert "| x | 2 x 1 | 150.0 / 100.0 | 120.0 | 180.0 | 8.3 | 1.20 | 0.80 | 1.50 | " in text
    assert " | 240.0 / 200.0 / 210.0 / 420.0 | 7 / 7 |" in text
    assert "failed: out of memory" in text


def test_the_video_moves_and_has_the_asked_size(tmp_path: Path) -> None:
    data = write_images(tmp_path / "set")
    write_video(str(data), tmp_path / "v.avi", 7, (96, 64), "MJPG")
    capture, frames = cv2.VideoCapture(str(tmp_path / "v.avi")), []
    while (found := capture.read())[0]:
        frames.append(found[1])
    assert len(frames) == 7 and frames[0].shape == (64, 96, 3)
    assert all((a != b).any() for a, b in pairwise(frames))


@pytest.mark.parametrize(
    "argument", ["codec=H264", "size=64", "size=axb", "conf=high", "precision=int8", "rounds=0", "workers=x"]
)
def test_wrong_arguments_are_refused(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _tool().main([argument]) == 2
    assert "error" in capsys.readouterr().err
