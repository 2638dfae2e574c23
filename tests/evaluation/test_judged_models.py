"""What an artifact's latency is held against."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import export_colours
from core_models import tiny_artifact

from yoloquant.evaluation import latency
from yoloquant.evaluation.judged_models import JudgedModels
from yoloquant.evaluation.latency import Timing
from yoloquant.evaluation.results import Interval
from yoloquant.evaluation.validate_options import ValidateOptions
from yoloquant.targets.graph_form import GraphForm


def test_other_float_precisions_of_the_same_runtime_take_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fp32 = replace(export_colours(tmp_path / "x.onnx"), target="openvino")
    int8, fp16, weights = (replace(fp32, precision=each) for each in ("int8", "fp16", "weights"))
    exports = {
        "int8": int8,
        "fp16": fp16,
        "weights": weights,
        # of another runtime, of another form, and what another processor runs
        "litert": replace(fp16, target="litert"),
        "batch": replace(fp16, metadata=GraphForm(batch=2).to_metadata()),
        "emulated": fp16,
    }
    known: Any = None
    models = JudgedModels(tiny_artifact(), 1, ValidateOptions(memory=False), lambda *_: fp32, known)
    models.exports = exports
    facts = models.facts["fp32"]
    models.facts |= dict.fromkeys(exports, facts) | {"emulated": replace(facts, elsewhere="aarch64")}
    asked: list[Any] = []

    def timed(exported: Any, reference: Any, *_: Any, others: Any) -> Timing:
        asked.append((exported, reference, others))
        return Timing(None, Interval(0.8, 0.7, 0.9), against="fp16" if others else "fp32")

    monkeypatch.setattr(latency, "measure_latency", timed)
    pictures = [np.zeros((8, 8, 3), np.uint8)]
    measured = models._measured(facts, int8, pictures)
    assert asked == [(int8, fp32, [fp16])]
    assert measured.latency_ratio == Interval(0.8, 0.7, 0.9)
    assert measured.notes[-1] == "its latency is held against openvino:fp16, the fastest float"
    # a float file is held against FP32 alone
    assert models._measured(facts, fp16, pictures).notes == facts.notes and asked[-1][2] == []
