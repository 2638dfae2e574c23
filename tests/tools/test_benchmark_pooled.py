"""Several sets as one, boxes of a task with more than boxes, and the table of both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from task_outputs import info_of, outputs_of

from tools import benchmark_pooled
from tools.bench.pooled import boxes_alone, pooled, unlabelled, without_labels
from yoloquant.data.dataset import LabelledImage, ValidationSet
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import Evaluation, evaluate
from yoloquant.runtime.core.runner import Runner
from yoloquant.types import HeadLayout, Task

FEW = BootstrapOptions(replicates=20)


class Fixed(Runner):
    """Returns outputs of its own for every image, the same in every pass; ``noise`` moves them a little."""

    def __init__(self, task: Task, count: int, *, noise: float = 0.0) -> None:
        self.task, self.count, self.noise, self.calls = task, count, noise, 0
        self.info, self.layout = info_of(task), HeadLayout.DECODED

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        seed, self.calls = self.calls % self.count, self.calls + 1
        rng = np.random.default_rng(seed)
        return tuple(o + self.noise * rng.normal(size=o.shape).astype(np.float32) for o in outputs_of(self.task, seed))


def a_set(root: Path, count: int, names: tuple[str, ...] = ("a", "b", "c")) -> ValidationSet:
    """Images with boxes where the first results of each are."""
    root.mkdir(parents=True)
    images = []
    for index in range(count):
        cv2.imwrite(str(root / f"{index}.png"), np.full((64, 96, 3), index, np.uint8))
        rows = outputs_of(Task.DETECT, index)[0][0]
        best = np.argsort(-rows[4:7].max(0))[:6]
        boxes = rows[:4, best].T / np.array([96, 64, 96, 64], np.float32)
        kinds = (rows[4:7, best].argmax(0) + len(names) - 3).astype(np.int64)
        images.append(LabelledImage(root / f"{index}.png", kinds, boxes.astype(np.float32)))
    return ValidationSet(tuple(images), names, str(root))


def found_on(task: Task, data: ValidationSet) -> Evaluation:
    count = len(data)
    return evaluate({"fp32": Fixed(task, count), "int8": Fixed(task, count, noise=0.3)}, data)


def test_boxes_found_without_labels_score_as_if_they_had_been_there(tmp_path: Path) -> None:
    data = a_set(tmp_path / "one", 3)
    wanted = Comparer(found_on(Task.DETECT, data), FEW).accuracy("int8")
    found = boxes_alone(found_on(Task.SEGMENT, unlabelled(data)), data, info_of(Task.SEGMENT))
    got = Comparer(found, FEW).accuracy("int8")
    assert wanted is not None and wanted.metrics["map50_95"] > 0.1
    assert got == wanted


def test_objects_that_the_model_does_not_know_are_no_labels(tmp_path: Path) -> None:
    data = a_set(tmp_path / "one", 3, ("other", "a", "b", "c"))
    kinds = np.concatenate([image.classes for image in data.images])
    strange = replace(data.images[0], classes=np.zeros_like(data.images[0].classes))
    mixed = replace(data, images=(strange, *data.images[1:]))
    evaluation = found_on(Task.SEGMENT, unlabelled(replace(data, names=("a", "b", "c"))))
    found = boxes_alone(evaluation, mixed, info_of(Task.SEGMENT))
    assert [len(truth.classes) for truth in found.labels] == [0, 6, 6]
    same = boxes_alone(evaluation, data, info_of(Task.SEGMENT))
    assert np.array_equal(np.concatenate([truth.classes for truth in same.labels]), kinds - 1)


@pytest.mark.parametrize("task", [Task.SEGMENT, Task.POSE])
def test_two_sets_are_one_pass_over_both(task: Task, tmp_path: Path) -> None:
    both = a_set(tmp_path / "both", 4)
    whole = without_labels(evaluate({"fp32": Fixed(task, 4), "int8": Fixed(task, 4, noise=0.3)}, unlabelled(both)))
    runners: dict[str, Runner] = {"fp32": Fixed(task, 4), "int8": Fixed(task, 4, noise=0.3)}
    halves = [replace(both, images=both.images[:2]), replace(both, images=both.images[2:])]
    parts = [evaluate(runners, unlabelled(half)) for half in halves]
    one, other = (Comparer(e, FEW).compare("int8").intervals for e in (whole, pooled(parts)))
    assert one == other and len([name for name in one if name.endswith("fidelity")]) == 2


def test_the_table_has_each_set_and_all_of_them(tmp_path: Path) -> None:
    sets = [a_set(tmp_path / "one", 2), a_set(tmp_path / "two", 3)]
    runners: dict[str, Runner] = {"fp32": Fixed(Task.SEGMENT, 5), "int8": Fixed(Task.SEGMENT, 5, noise=0.3)}
    parts = [(data, evaluate(runners, unlabelled(data))) for data in sets]
    head, *rows = benchmark_pooled.rows(parts, info_of(Task.SEGMENT), FEW)
    assert head[-2:] == ("fidelity", "mask fidelity")
    assert [row[:2] for row in rows[3:]] == [("int8", "2 one"), ("int8", "3 two"), ("int8", "5 all")]
    assert all(row[3] == "" for row in rows[:3]) and all("[" in cell for row in rows[3:] for cell in row[3:])


def test_a_model_without_boxes_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Made:
        info = info_of(Task.CLASSIFY)

    monkeypatch.setattr(benchmark_pooled, "calibrated", lambda options, names: Made())
    assert benchmark_pooled.main(["model=a.pt", "data=b", "more=c.yaml"]) == 2
    assert "is a classify model" in capsys.readouterr().err
