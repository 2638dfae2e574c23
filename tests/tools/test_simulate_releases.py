"""Simulated releases: what is the same never differs, what is worse does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from validation_fakes import NAMES, FakeRunner, label_rows, write_dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import simulate_releases

from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.evaluation.keep_results import keep_results
from yoloquant.evaluation.verdict import ArtifactInfo
from yoloquant.runtime.core.letterbox import place
from yoloquant.types import ModelInfo, Task


def test_verdicts_and_intervals_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yaml = write_dataset(tmp_path / "set", count=12)
    data, where, rng = ValidationSet.from_yaml(yaml), place((48, 64), (64, 64)), np.random.default_rng(0)
    rows = label_rows([(i.classes, where.to_input(i.boxes)) for i in data.images])
    far = [np.concatenate([r[:, :4] + rng.uniform(-5, 5, (len(r), 4)), r[:, 4:]], axis=1) for r in rows]
    runners = {"fp32": FakeRunner(rows), "far": FakeRunner(far), "same": FakeRunner(rows)}
    evaluation = evaluate(runners, data, EvaluateOptions(warmup=0))
    info = ModelInfo(Task.DETECT, NAMES, (64, 64))
    file = keep_results(tmp_path, evaluation, {name: ArtifactInfo() for name in runners}, info, {})
    common = [f"data={yaml}", "trials=3", "replicates=20"]
    assert simulate_releases.main([f"old={file}:fp32", f"new={file}", *common]) == 0
    out = capsys.readouterr().out
    assert "mAP50-95 drop +0.00 points (+0.00 to +0.00), fidelity 0.99" in out
    assert "map_drop holds 0: 3 (100.0%)" in out and "inconclusive: 3" in out  # twelve images prove nothing
    assert "said" not in out, "and nothing is said of them"
    gate = tmp_path / "gate.yaml"
    gate.write_text("{name: g, limits: {map_drop: {limit: 0.01, rule: likely}}, min_images: 1, min_replicates: 1}")
    assert simulate_releases.main([f"old={file}:fp32", f"new={file}", *common, f"gate={gate}"]) == 0
    assert 'said "no difference beyond ...": 3 (100.0%)' in capsys.readouterr().out
    assert simulate_releases.main([f"old={file}:fp32", f"new={file}:far", *common]) == 0
    assert "map_drop holds 0" not in capsys.readouterr().out
    assert simulate_releases.main(["old=a.npz"]) == 2
