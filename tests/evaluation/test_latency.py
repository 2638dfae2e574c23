"""Latency in processes of their own, and memory that is not the parent's: how figures are made, never how large."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from colour_model import export_colours

from yoloquant.evaluation import memory
from yoloquant.evaluation.latency import measure_latency, unmeasured
from yoloquant.runtime.apps.bench import BenchOptions, Taken
from yoloquant.runtime.apps.bench_worker import Turn
from yoloquant.runtime.device.sensors import Reading
from yoloquant.targets import get
from yoloquant.targets.exports import save_exports


def taken(**rounds: list[float]) -> Taken:
    """Turns whose inference took so many milliseconds in each round."""
    turns = {
        name: [(Turn(np.array([[9.0, ms / 1e3, 9.0]] * 3), 1.0, 1.0, None), Reading(None, None, {})) for ms in values]
        for name, values in rounds.items()
    }
    return Taken(turns, {name: {} for name in turns}, {}, {})


def test_the_ratio_is_of_rounds_and_says_how_it_scatters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = export_colours(tmp_path / "x.onnx")
    rounds = taken(int8=[1, 1, 1, 1, 3], fp32=[2, 2, 4, 2, 2])
    monkeypatch.setattr("yoloquant.evaluation.latency.take_turns", lambda *a, **k: rounds)
    timing = measure_latency(model, model, [np.zeros((8, 8, 3), np.uint8)], 1)
    assert timing.ratio is not None and timing.latency is not None and not timing.note
    assert timing.ratio.value == 0.5 and timing.ratio.low < 0.5 < timing.ratio.high and timing.ratio.level == 0.8
    assert timing.latency.median_ms == 1.0 and timing.latency.runs == 15 and timing.latency.high_ms > 1.0


@pytest.mark.parametrize(
    ("fp16", "against", "ratio"),
    [
        ([1.6] * 5, "fp16", 0.625),
        # no faster, and faster within what rounds scatter by
        ([2.5] * 5, "fp32", 0.5),
        ([1.6, 1.6, 1.6, 2.5, 2.5], "fp32", 0.5),
    ],
)
def test_the_fastest_float_precision_is_what_a_ratio_is_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fp16: list[float], against: str, ratio: float
) -> None:
    model = export_colours(tmp_path / "x.onnx")
    rounds, timed = taken(int8=[1] * 5, fp32=[2] * 5, fp16=fp16), []
    monkeypatch.setattr(
        "yoloquant.evaluation.latency.take_turns", lambda models, *a: timed.append(list(models)) or rounds
    )
    other = replace(model, precision="fp16")
    timing = measure_latency(model, model, [np.zeros((8, 8, 3), np.uint8)], 1, others=[other])
    assert timed == [["int8", "fp16", "fp32"]]
    assert timing.against == against and timing.ratio is not None and timing.ratio.value == pytest.approx(ratio)


def test_a_model_that_is_really_timed(tmp_path: Path) -> None:
    model = export_colours(tmp_path / "x.onnx")
    pictures = [np.zeros((64, 64, 3), np.uint8)]
    timing = measure_latency(model, None, pictures, 1, BenchOptions(rounds=2, runs=2, warmup=1))
    assert timing.latency is not None and timing.latency.runs == 4 and timing.latency.median_ms > 0
    assert timing.ratio is None and "no float model" in timing.note
    (tmp_path / "x.onnx").write_bytes(b"broken")
    assert "its process failed" in measure_latency(model, None, pictures, 1).note


def test_what_cannot_be_timed_here_says_so() -> None:
    assert unmeasured(get("edgetpu")).startswith("not measured here: it is for coral")
    assert unmeasured(get("tensorrt")).startswith("not measured here: it is for jetson")
    assert unmeasured(get("onnxruntime")) == ""


def test_peak_memory_is_not_the_parents(tmp_path: Path) -> None:
    model = export_colours(tmp_path / "x.onnx")
    save_exports(tmp_path, [model])
    held = np.ones(1_000_000_000, np.uint8)
    peak = memory.peak_memory(model, 1)
    if peak is None:
        pytest.skip("this system does not tell")
    assert 10_000_000 < peak < held.nbytes
