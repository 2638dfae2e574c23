"""Every task is compared, judged and shown by the same pass; one broken artifact costs the others nothing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from task_outputs import info_of, outputs_of

from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.evaluation.gate import exit_code, load_gate
from yoloquant.evaluation.keep_results import keep_results
from yoloquant.evaluation.verdict import ArtifactInfo, VerdictOptions, reach_verdict
from yoloquant.predictions.results_file import ResultsFile
from yoloquant.report.page import to_html
from yoloquant.runtime.core.runner import Runner
from yoloquant.types import HeadLayout, Task, Verdict

GATE = {"name": "test", "limits": {"fidelity": 0.9}, "min_images": 3, "min_detections": 1}
LINES = {Task.SEGMENT, Task.POSE, Task.OBB}
"""Tasks whose results have more to show than a box."""


class Fixed(Runner):
    """Returns the outputs of one seed for the first image, of the next one for the second, and so on."""

    def __init__(self, task: Task, *, seed: int = 0, broken: bool = False) -> None:
        self.task, self.seed, self.broken = task, seed, broken
        self.info, self.layout = info_of(task), HeadLayout.DECODED

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        outputs = outputs_of(self.task, self.seed)
        self.seed += 1
        if self.broken:
            outputs[0][..., 0] = np.nan
        return outputs


@pytest.fixture
def data(tmp_path: Path) -> ValidationSet:
    rng = np.random.default_rng(0)
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), rng.integers(0, 255, (48, 64, 3), np.uint8))
    return ValidationSet.from_folder(tmp_path, ("a", "b", "c"))


class Sure(Fixed):
    """A classifier that leaves next to nothing for the other classes."""

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        self.seed += 1
        return (np.roll(np.array([[0.9995, 0.0004, 0.0001]], np.float32), self.seed, axis=1),)


def test_recorded_classes_count_however_improbable_they_are(tmp_path: Path, data: ValidationSet) -> None:
    """Divergence and top-5 ask for every class; boxes alone are cut at a confidence."""
    runners = {"fp32": Sure(Task.CLASSIFY), "int8": Sure(Task.CLASSIFY, seed=1)}
    direct = evaluate(runners, data, EvaluateOptions(warmup=0))
    (tmp_path / "report").mkdir()
    path = keep_results(tmp_path / "report", direct, {}, info_of(Task.CLASSIFY), {})
    assert path is not None
    file = ResultsFile(path)
    again = evaluate({}, data, EvaluateOptions(), recorded={name: file.model(name, data) for name in file.names})
    one, other = (Comparer(e, BootstrapOptions(replicates=20)).compare("int8").comparison for e in (direct, again))
    assert one == other and one.intervals["divergence"].value > 1


@pytest.mark.parametrize("task", list(Task))
def test_the_same_agrees_another_does_not_and_a_broken_one_is_an_error(task: Task, data: ValidationSet) -> None:
    runners = {
        "fp32": Fixed(task),
        "same": Fixed(task),
        "other": Fixed(task, seed=50),
        "broken": Fixed(task, broken=True),
    }
    evaluation = evaluate(runners, data, EvaluateOptions(warmup=0))
    assert set(evaluation.errors) == {"broken"} and "NaN" in evaluation.errors["broken"]
    facts = {name: ArtifactInfo() for name in ("same", "other", "broken")}
    result = reach_verdict(
        evaluation, load_gate(GATE), facts, VerdictOptions(bootstrap=BootstrapOptions(replicates=50))
    )
    verdicts = {target.target: target.verdict for target in result.targets}
    assert verdicts["broken"] is Verdict.ERROR and exit_code(result) not in {0, 1}
    same, other, _ = result.targets
    assert same.comparison is not None and other.comparison is not None
    assert same.comparison.fidelity.value == pytest.approx(1, abs=0.011)
    assert other.comparison.fidelity.value < 0.7 and verdicts["other"] is not Verdict.PASS
    shown = [example for example in result.examples if example.target == "same"]
    assert shown and all(bool(any(map(len, example.fp32_lines))) == (task in LINES) for example in shown)
    assert ("<polyline" in to_html(result)) == (task in LINES)
