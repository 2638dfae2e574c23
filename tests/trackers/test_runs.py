"""What trackers are told of results: finite figures by row, and files of the report."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from validation_fakes import FakeRunner, label_rows

from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.evaluation.gate import load_gate
from yoloquant.evaluation.verdict import ArtifactInfo, VerdictOptions, reach_verdict
from yoloquant.runtime.core.letterbox import place
from yoloquant.trackers.runs import numbers, of_validation


def test_figures_of_a_validation(dataset: Path, tmp_path: Path) -> None:
    data = ValidationSet.from_yaml(dataset)
    where = place((48, 64), (64, 64))
    rows = label_rows([(i.classes, where.to_input(i.boxes)) for i in data.images])
    evaluation = evaluate({"fp32": FakeRunner(rows), "int8": FakeRunner(rows)}, data, EvaluateOptions(warmup=0))
    options = VerdictOptions(bootstrap=BootstrapOptions(replicates=20), environment={"model": "best.pt"})
    result = reach_verdict(evaluation, load_gate("default"), {"int8": ArtifactInfo(size_bytes=2_000_000)}, options)
    (tmp_path / "report.md").write_text("words")
    run = of_validation(result, tmp_path)
    assert (run.verb, run.name, run.text) == ("validate", "best.pt", "words")
    assert run.parameters["verdict"] == result.verdict.value and run.parameters["gate"] == "default"
    assert run.metrics["fp32/map50_95"] == pytest.approx(0.995, abs=0.006)
    assert run.metrics["int8/fidelity"] == pytest.approx(0.995, abs=0.006) and run.metrics["int8/map_drop"] == 0
    assert run.metrics["int8/size_mb"] == 2 and "int8/latency_ms" not in run.metrics
    assert all(math.isfinite(v) for v in run.metrics.values())


def test_only_finite_numbers_are_told() -> None:
    assert numbers({"a": 1, "b": math.nan, "c": None, "d": "x", "e": np.inf}) == {"a": 1.0}
