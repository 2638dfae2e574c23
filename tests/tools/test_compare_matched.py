"""What is lost at the deployed confidence is found again at matched ones, also on images that chose none."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from validation_fakes import NAMES, FakeRunner, label_rows, write_dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import compare_matched

from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.evaluation.keep_results import keep_results
from yoloquant.evaluation.verdict import ArtifactInfo
from yoloquant.runtime.core.letterbox import place
from yoloquant.types import ModelInfo, Task


def test_scores_that_shrink_alike_lose_nothing_at_matched_confidences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml = write_dataset(tmp_path / "set", count=20)
    data, where, rng = ValidationSet.from_yaml(yaml), place((48, 64), (64, 64)), np.random.default_rng(0)
    rows = label_rows([(i.classes, where.to_input(i.boxes)) for i in data.images])
    for each in rows:
        each[:, 4] = rng.uniform(0.2, 0.9, len(each))
    wrong = [[[1 + 5 * k, 57, 4 + 5 * k, 59, rng.uniform(0.1, 0.6), 0] for k in range(2)] for _ in rows]
    rows = [np.concatenate([each, np.array(more)]) for each, more in zip(rows, wrong, strict=True)]
    low = [each * np.array([1, 1, 1, 1, 0.6, 1]) for each in rows]
    evaluation = evaluate({"fp32": FakeRunner(rows), "low": FakeRunner(low)}, data, EvaluateOptions(warmup=0))
    info = ModelInfo(Task.DETECT, NAMES, (64, 64))
    file = keep_results(tmp_path, evaluation, {"low": ArtifactInfo()}, info, {})
    assert compare_matched.main([f"results={file}", f"data={yaml}", "conf=0.4", "halves=10"]) == 0
    lines = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| low")]
    assert len(lines) == 5 and "confidences move by -0.2" in lines[0][2]
    lost = [float(line[3].split()[0]) for line in lines]
    assert lost[0] > 10 and all(abs(value) < 1.5 for value in lost[1:])
    assert all(0.2 < float(line[1]) < 0.28 for line in lines[1::2])
    assert all(abs(float(line[4])) < 3 for line in lines[1:])
    assert compare_matched.main(["results=a.npz"]) == 2
