"""Releases that are drawn are judged by the command itself, and what they truly are is known before."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from validation_fakes import NAMES, FakeRunner, label_rows, write_dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools import study_releases as tool
from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.evaluation.gate import load_gate
from yoloquant.predictions.results_file import ResultsFile
from yoloquant.runtime.core.letterbox import place
from yoloquant.types import ModelInfo, Task


@pytest.fixture
def population(tmp_path: Path) -> tool.Population:
    """Forty images: FP32 finds every label, one plan too, another is three pixels beside it, one swaps two classes."""
    data = ValidationSet.from_yaml(write_dataset(tmp_path / "set", count=40))
    where = place((48, 64), (64, 64))
    rows = label_rows([(i.classes, where.to_input(i.boxes)) for i in data.images])
    far = [each + np.array([3, 0, 3, 0, 0, 0]) for each in rows]
    swapped = [np.concatenate([each[:, :5], np.array([1, 0, 2])[each[:, 5:].astype(int)]], axis=1) for each in rows]
    found = {"fp32": rows, "litert plan": rows, "wrong range": far, "two classes swapped": swapped}
    runners = {name: FakeRunner(each) for name, each in found.items()}
    evaluation = evaluate(runners, data, EvaluateOptions(warmup=0))
    return tool.population("tiny", evaluation, ModelInfo(Task.DETECT, NAMES, (64, 64)), tmp_path / "work")


def test_kinds_follow_from_all_images(population: tool.Population) -> None:
    found = tool.pairs_by_kind([population], load_gate("release"))
    named = {kind: {(r.old, r.new) for r in releases} for kind, releases in found.items()}
    assert named["harmless"] == {("fp32", "litert plan"), ("litert plan", "fp32")}
    bad = {"wrong range", "two classes swapped"}
    assert named["harmful"] == {(old, new) for old in ("fp32", "litert plan") for new in bad}
    assert all(release.drop == 0 for release in found["harmless"])


def test_artifacts_of_one_model_are_held_to_what_the_old_one_found(population: tool.Population, tmp_path: Path) -> None:
    info = ModelInfo(Task.DETECT, NAMES, (64, 64))
    kin = tool.population("tiny", population.evaluation, info, tmp_path / "kin", "weights")
    assert kin.fidelity["fp32", "litert plan"] > 0.99 > kin.fidelity["fp32", "wrong range"] and not population.fidelity
    gate = load_gate({"name": "g", "limits": {"map_drop": 0.2, "same_model_fidelity": 0.85}})
    assert tool.excess(kin, "fp32", "wrong range", gate) > tool.excess(population, "fp32", "wrong range", gate)
    shown = tool.agreement([kin, population])
    assert shown[2].startswith("| a sound one | 2 | 0.9") and "| wrong range | 2 | " in shown[-1] + shown[-2]
    files = [ResultsFile(each.files["fp32"]) for each in (kin, population)]
    assert [file.row("release").weights for file in files] == ["weights", ""]


def test_the_command_judges_on_the_chosen_images(population: tool.Population, tmp_path: Path) -> None:
    found = tool.pairs_by_kind([population], load_gate("release"))
    (good,) = (r for r in found["harmless"] if r.old == "fp32")
    (bad,) = (r for r in found["harmful"] if (r.old, r.new) == ("fp32", "wrong range"))
    (tmp_path / "judged").mkdir()
    assert tool.judged(good, "release", range(32), tmp_path / "judged") == "pass"
    assert tool.judged(bad, "release", range(8, 40), tmp_path / "judged") == "fail"
    assert "32 images" in (tmp_path / "judged" / "report" / "report.md").read_text()
    # Fewer than the gate asks for.
    assert tool.judged(bad, "release", range(8), tmp_path / "judged") == "inconclusive"


def test_wrong_verdicts_are_counted() -> None:
    counts = {
        ("harmless", "fp32"): Counter({"pass": 8, "fail": 1, "inconclusive": 1}),
        ("harmful", "a"): Counter({"fail": 4, "pass": 1}),
        ("harmful", "b"): Counter({"fail": 5}),
    }
    text = "\n".join(tool.summary(counts))
    assert "| harmless | 10 | 80.0 % | 10.0 % | 10.0 % |" in text
    assert "| harmful | 10 | 10.0 % | 90.0 % | 0.0 % |" in text and "Wrong verdicts: 2 of 20 (10.0 %)." in text
    shown = tool.table(counts, {key: [0.01, -0.02] for key in counts})
    assert "| a | harmful | 5 | -2.00 to +1.00 | 1 | 4 | 0 |" in shown
