"""The profile of a calibration: what is counted where, and what is told of it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from core_models import checkpoint, write_images

from yoloquant import QuantizeOptions
from yoloquant.options import gather
from yoloquant.quantization import ptq

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import profile_quantize as tool  # noqa: E402


def test_a_stage_inside_another_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter((0.0, 1.0, 4.0, 6.0, 10.0, 11.0))
    monkeypatch.setattr(time, "process_time", lambda: next(now))
    place = SimpleNamespace(inner=lambda: "kept", outer=lambda: place.inner())
    clock = tool.Clock()
    clock.watch(place, "inner", "inside")
    clock.watch(place, "outer", "around")
    assert place.outer() == "kept"  # from 0 to 6, the inner one from 1 to 4
    assert place.inner() == "kept"  # from 10 to 11
    assert clock.seconds == {"inside": 3.0 + 1.0, "around": 3.0}


def test_every_stage_and_option_is_there() -> None:
    assert set(tool.IN_PTQ) < set(tool.STAGES) and all(hasattr(ptq, name) for name in tool.IN_PTQ)
    plain = vars(QuantizeOptions().ranges)
    for off in tool.OFF.values():
        assert vars(gather(QuantizeOptions, None, off, "quantize").ranges) != plain


def test_the_table_names_what_was_left_out() -> None:
    stages = {tool.IMPORTS: 1.0, **dict.fromkeys(tool.STAGES, 0.5), tool.REST: 0.25, tool.WHOLE: 5.0}
    found = {name: {"stages": stages, "sha256": "0123456789abcdef"} for name in ("", "both")}
    text = tool.markdown({**tool.DEFAULTS, "model": "a/b.pt"}, found, checks=True)
    assert "| processor s | with everything | without both |" in text and text.startswith("b.pt, coco8.yaml, 640 px")
    assert "| **together** | 5.0 | 5.0 |" in text and "| hash of the plans | 0123456789ab | 0123456789ab |" in text
    assert "hash" not in tool.markdown(tool.DEFAULTS, found, checks=False)


def test_a_real_calibration_is_counted_whole(tmp_path: Path) -> None:
    model, data = checkpoint(tmp_path / "m.pt"), write_images(tmp_path / "data")
    values = {**tool.DEFAULTS, "model": str(model), "data": str(data), "imgsz": "64", "images": "8", "scheme": "litert"}
    found = tool.measured(values, "", tmp_path)
    stages = dict(found["stages"])
    whole = stages.pop(tool.WHOLE)
    assert sum(stages.values()) == pytest.approx(whole)
    # five scored images are too few to be described, and LiteRT's kernels add in 32 bits
    none = {stage for stage, value in stages.items() if not value}
    assert none == {"describe", "with_safe_weights"} and min(stages.values()) >= 0
    assert len(found["sha256"]) == 64 and (tmp_path / "all" / "quantized.pt").is_file()


def test_the_whole_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    def measured(values: Any, without: str, output: Path) -> dict[str, Any]:
        asked.append(without)
        output.mkdir(exist_ok=True)
        return {"stages": dict.fromkeys((tool.IMPORTS, *tool.STAGES, tool.REST, tool.WHOLE), 1.0), "sha256": "0" * 64}

    monkeypatch.setattr(tool, "measured", measured)
    assert tool.main(["without=score_shift,both", f"output={tmp_path}"]) == 0
    assert asked == ["", "score_shift", "both"]
    assert (tmp_path / "profile.md").read_text() in capsys.readouterr().out
    assert set(json.loads((tmp_path / "profile.json").read_text())["found"]) == {"", "score_shift", "both"}
    assert tool.main(["without=all"]) == 2 and "allowed are output_aware" in capsys.readouterr().err
