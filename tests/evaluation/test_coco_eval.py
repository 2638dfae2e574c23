"""pycocotools' figures beside ours: equal where both must be, and different for the reasons that are told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from other_formats import write_coco
from validation_fakes import NAMES, FakeRunner, label_rows, write_dataset

pytest.importorskip("pycocotools")

from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import UsageError
from yoloquant.evaluation import coco_eval
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.coco_eval import WHY, beside, coco_figures, require_coco_eval
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from yoloquant.evaluation.gate import load_gate
from yoloquant.evaluation.verdict import ArtifactInfo, VerdictOptions, reach_verdict
from yoloquant.runtime.core.letterbox import place
from yoloquant.runtime.tasks import spec_of
from yoloquant.types import ModelInfo, Task

WHERE = place((48, 64), (64, 64))


@pytest.fixture
def data(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ValidationSet:
    """Six images, with a crowd in the first."""
    monkeypatch.setenv("YOLOQUANT_CACHE", str(tmp_path / "cache"))
    folder = write_coco(dataset, tmp_path / "coco")
    file = folder / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    crowd = {"id": 99, "image_id": 0, "category_id": 3, "bbox": [40, 30, 20, 16], "area": 320, "iscrowd": 1}
    content["annotations"].append(crowd)
    file.write_text(json.dumps(content))
    return ValidationSet.open(folder, ModelInfo(Task.DETECT, NAMES, (64, 64)))


def _run(data: ValidationSet, rows: list[np.ndarray]) -> Evaluation:
    return evaluate({"fp32": FakeRunner(rows), "int8": FakeRunner(rows)}, data, EvaluateOptions(warmup=0))


def _right(data: ValidationSet) -> list[np.ndarray]:
    return label_rows([(i.classes, WHERE.to_input(i.boxes)) for i in data.images])


def test_what_finds_every_label_scores_one(data: ValidationSet) -> None:
    found = coco_figures(_run(data, _right(data)))["fp32"]
    assert (found.map50_95, found.map50, found.limit, found.crowds) == (pytest.approx(1), pytest.approx(1), 0, 0)


def test_boxes_in_a_crowd_are_no_false_alarms(data: ValidationSet) -> None:
    rows = _right(data)
    rows[0] = np.concatenate([rows[0], [[42, 40, 58, 52, 0.95, 0]]])  # inside the crowd, surer than everything
    found = coco_figures(_run(data, rows))["fp32"]
    assert found.map50_95 == pytest.approx(1) and found.crowds > 0.01
    assert "1 crowd regions are left out" in data.notes[0]


def test_only_a_hundred_boxes_of_an_image_count(data: ValidationSet) -> None:
    rows = _right(data)
    wrong = [[5 * (k % 10), 5 * (k // 10), 5 * (k % 10) + 3, 5 * (k // 10) + 3, 0.95, 0] for k in range(100)]
    rows[0] = np.concatenate([wrong, rows[0]])
    found = coco_figures(_run(data, rows))["fp32"]
    assert found.limit > 0.001


def test_the_report_has_both_figures_and_the_reason(data: ValidationSet) -> None:
    rng, rows = np.random.default_rng(0), _right(data)
    rows = [np.concatenate([r[:, :4] + rng.normal(0, 1, (len(r), 4)), r[:, 4:]], axis=1) for r in rows]
    evaluation = _run(data, rows)
    result = reach_verdict(
        evaluation,
        load_gate("default"),
        {"int8": ArtifactInfo(path="x")},
        VerdictOptions(bootstrap=BootstrapOptions(replicates=20)),
    )
    shown, figures = beside(result, coco_figures(evaluation)), coco_figures(evaluation)["int8"]
    accuracy, ours = shown.targets[0].accuracy, Comparer(evaluation, BootstrapOptions(replicates=2)).accuracy("int8")
    assert accuracy is not None and ours is not None
    assert accuracy.metrics["coco_map50_95"] == figures.map50_95 and 0.1 < figures.map50_95 < 0.95
    assert abs(figures.map50_95 - ours.map50_95) < 0.05
    assert f"mAP50-95 {figures.map50_95 * 100:.2f}" in shown.targets[0].notes[0]
    assert f"ours are {ours.map50_95 * 100:.2f}" in shown.targets[0].notes[0]
    assert shown.notes[-1] == WHY and shown.notes[-2].startswith("fp32: pycocotools")


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(UsageError, match="give data="):
        require_coco_eval(spec_of(Task.DETECT), labelled=False)
    with pytest.raises(UsageError, match="a classifier has none of"):
        require_coco_eval(spec_of(Task.CLASSIFY), labelled=True)


def _pose(tmp_path: Path) -> tuple[ValidationSet, ModelInfo]:
    """Twelve objects of two keypoints on six images."""
    yaml = write_dataset(tmp_path / "set", count=6)
    for file in sorted((tmp_path / "set").rglob("*.txt")):
        rows = [line.split() for line in file.read_text().splitlines()]
        points = [f"{float(x) - 0.02:.4f} {y} 2 {float(x) + 0.02:.4f} {y} 1" for _, x, y, *_ in rows]
        file.write_text("".join(f"{' '.join(row)} {more}\n" for row, more in zip(rows, points, strict=True)))
    yaml.write_text(yaml.read_text() + "\nkpt_shape: [2, 3]\n")
    info = ModelInfo(Task.POSE, NAMES, (64, 64), kpt_shape=(2, 3))
    return ValidationSet.open(yaml, info), info


class PartsRunner(FakeRunner):
    """A runner whose results have values besides boxes, (n, values) for every image, and further outputs."""

    def __init__(
        self, rows: list[np.ndarray], info: ModelInfo, values: list[np.ndarray], more: tuple[np.ndarray, ...] = ()
    ) -> None:
        super().__init__(rows)
        self.info, self.values, self.more = info, values, more

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        values = self.values[self.calls % len(self.values)]
        (output,) = super().infer(image)
        further = np.zeros((1, values.shape[1], output.shape[2]), np.float32)
        further[0, :, : len(values)] = values.T
        return (np.concatenate([output, further], axis=1), *self.more)


def _keypoints(data: ValidationSet, moved: float) -> list[np.ndarray]:
    """The labels' keypoints, so many pixels beside their places."""
    found = []
    for image in data.images:
        points = image.labels.parts["keypoints"].astype(np.float64)
        points[..., :2] = WHERE.points_to_input(points[..., :2]) + moved
        found.append(points.reshape(len(points), -1))
    return found


def test_keypoints_are_scored_with_their_similarity(tmp_path: Path) -> None:
    data, info = _pose(tmp_path)
    distances = (("fp32", 0.0), ("moved", 5.0))
    runners = {name: PartsRunner(_right(data), info, _keypoints(data, far)) for name, far in distances}
    evaluation = evaluate(runners, data, EvaluateOptions(warmup=0, keep_parts=True))
    figures = coco_figures(evaluation)
    (exact,), (moved,) = figures["fp32"].further, figures["moved"].further
    assert figures["moved"].map50_95 == pytest.approx(1) == exact.map50_95
    ours = Comparer(evaluation, BootstrapOptions(replicates=2)).accuracy("moved")
    assert ours is not None and 0.02 < moved.map50_95 < 0.98
    assert moved.map50_95 == pytest.approx(ours.metrics["pose_map50_95"], abs=0.05)
    facts = {"moved": ArtifactInfo(path="x")}
    result = reach_verdict(evaluation, load_gate("default"), facts, VerdictOptions(BootstrapOptions(replicates=20)))
    shown = beside(result, figures)
    assert shown.targets[0].accuracy.metrics["coco_pose_map50_95"] == moved.map50_95  # type: ignore[union-attr]
    assert f"scores these keypoints with mAP50-95 {moved.map50_95 * 100:.2f}" in shown.targets[0].notes[1]


def _masks(tmp_path: Path) -> Evaluation:
    """Labels that fill their boxes, and two models: masks that fill them, and masks of a half of them."""
    yaml = write_dataset(tmp_path / "set", count=6)
    for file in sorted((tmp_path / "set").rglob("*.txt")):
        lines = []
        for kind, *numbers in (line.split() for line in file.read_text().splitlines()):
            x, y, w, h = map(float, numbers)
            left, top, right, low = x - w / 2, y - h / 2, x + w / 2, y + h / 2
            lines.append(" ".join([kind, *(f"{v:.5f}" for v in (left, top, right, top, right, low, left, low))]))
        file.write_text("\n".join(lines) + "\n" if lines else "")
    info = ModelInfo(Task.SEGMENT, NAMES, (64, 64))
    data = ValidationSet.open(yaml, info)
    rows = _right(data)
    ones, whole = [np.ones((len(each), 1)) for each in rows], np.ones((1, 1, 16, 16), np.float32)
    half = whole * np.where(np.arange(16) % 4 < 2, 1, -1).astype(np.float32)  # stripes
    runners = {name: PartsRunner(rows, info, ones, (mask,)) for name, mask in (("fp32", whole), ("half", half))}
    return evaluate(runners, data, EvaluateOptions(warmup=0, keep_parts=True))


def test_masks_are_scored_at_the_size_of_the_image(tmp_path: Path) -> None:
    """Masks that fill their boxes agree with labels that do; those of a half of them do not."""
    figures = coco_figures(_masks(tmp_path))
    assert figures["half"].map50_95 == pytest.approx(1)  # the boxes are the same
    assert figures["fp32"].further[0].map50 == pytest.approx(1)
    assert figures["half"].further[0].map50_95 < 0.5 * figures["fp32"].further[0].map50_95


def test_masks_are_scored_again_where_an_image_has_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pycocotools writes into the results that it is given, and cannot read them a second time."""
    evaluation = _masks(tmp_path)
    once = coco_figures(evaluation)["fp32"].further[0]
    monkeypatch.setitem(coco_eval.MOST, "segm", 0)  # so that one result of a class is more than that
    limited = coco_figures(evaluation)["fp32"].further[0]
    assert limited.limit > 0
    assert limited.map50_95 + limited.limit == pytest.approx(once.map50_95)
