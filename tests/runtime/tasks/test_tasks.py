"""What every task must hold, and what each computes against Ultralytics' own functions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from task_outputs import IMGSZ, info_of, outputs_of

from yoloquant.runtime.core.detections import Detections, Selection
from yoloquant.runtime.core.letterbox import place
from yoloquant.runtime.core.matching import Truth
from yoloquant.runtime.core.model_info import HeadLayout, ModelInfo, Task
from yoloquant.runtime.errors import DataError, TargetError
from yoloquant.runtime.io.draw import Painter
from yoloquant.runtime.tasks import SPECS, spec_of
from yoloquant.runtime.tasks.obb import corners_of, probiou
from yoloquant.runtime.tasks.pose import oks, sigmas_of
from yoloquant.runtime.tasks.segment import _fill, _resampled, mask_iou


@pytest.mark.parametrize("task", Task)
class TestEveryTask:
    def test_its_limits_and_metrics_have_names_of_their_own(self, task: Task) -> None:
        spec = spec_of(task)
        assert spec.task is task and task in SPECS
        assert len({m.name for m in spec.metrics}) == len({m.drop for m in spec.metrics}) == len(spec.metrics)
        assert set(spec.main_metrics) <= {m.name for m in spec.metrics}
        assert len(spec.main_metrics) == len(spec.similarities)

    def test_a_result_scored_against_itself_is_perfect(self, task: Task) -> None:
        spec, info, where = spec_of(task), info_of(task), place(IMGSZ, IMGSZ)
        found = spec.select(outputs_of(task), HeadLayout.DECODED, info, Selection())
        truth = spec.reference(found, 0.25, where)
        matches = {prefix: [matched] for prefix, matched in spec.match(found, truth, where.area_scale).items()}
        values = spec.fidelity([found], matches, [spec.kept(truth)]).values(np.ones((1, 1)))
        for name, value in values.items():
            assert value[0] == pytest.approx(0 if name == "divergence" else 1, abs=0.011), name

    def test_a_result_is_drawn_and_written(self, task: Task) -> None:
        spec, info, where = spec_of(task), info_of(task), place((100, 120), IMGSZ)
        found = spec.select(outputs_of(task), HeadLayout.DECODED, info, Selection(conf=0.3, multi_label=False))
        shown = spec.to_original(found, where)
        image = np.zeros((100, 120, 3), np.uint8)
        spec.draw(Painter(info.names), image, shown)
        assert image.any() and len(spec.counted(shown)) > 0
        record = spec.record(shown, (100, 120))
        assert all(len(rows) == len(shown) for rows in record.values()) and json.dumps(record)
        lines = spec.outlines(spec.compact(found, 0.3), where)
        assert len(lines) == len(found) and json.dumps(lines)

    def test_an_image_without_anything_is_an_image(self, task: Task, tmp_path: Path) -> None:
        spec, info, where = spec_of(task), info_of(task), place((100, 120), IMGSZ)
        if task is Task.CLASSIFY:
            pytest.skip("a classifier always says something, and every image has a class")
        nothing = spec.select(outputs_of(task), HeadLayout.DECODED, info, Selection(conf=1.0))
        labels = spec.read_labels(tmp_path / "background.txt", info)
        assert len(nothing) == len(labels.classes) == 0
        truth = spec.truth(labels, where, info)
        some = spec.select(outputs_of(task), HeadLayout.DECODED, info, Selection(conf=0.3))
        for found, against in ((nothing, truth), (some, truth), (nothing, spec.reference(some, 0.3, where))):
            spec.match(found, against, where.area_scale)
        shown = spec.to_original(nothing, where)
        assert all(not rows for rows in spec.record(shown, (100, 120)).values())

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_broken_outputs_are_refused(self, task: Task, value: float) -> None:
        spec, info = spec_of(task), info_of(task)
        for index in range(len(outputs_of(task))):
            outputs = outputs_of(task)
            outputs[index].reshape(-1)[0] = value
            with pytest.raises(TargetError, match="NaN or infinite"):
                spec.select(outputs, HeadLayout.DECODED, info, Selection())

    def test_outputs_of_another_task_are_refused(self, task: Task) -> None:
        spec, info = spec_of(task), info_of(task)
        other = Task.CLASSIFY if task is not Task.CLASSIFY else Task.POSE
        with pytest.raises(TargetError, match="needs"):
            spec.select(outputs_of(other), HeadLayout.DECODED, info, Selection())


def test_oks_is_ultralytics() -> None:
    torch = pytest.importorskip("torch")
    from ultralytics.utils.metrics import kpt_iou

    rng = np.random.default_rng(0)
    truth, found = (rng.uniform(0, 90, (n, 17, 3)).astype(np.float32) for n in (4, 6))
    truth[..., 2] = rng.integers(0, 3, (4, 17))
    found[:4, :, :2] = truth[..., :2] + rng.normal(0, 2, (4, 17, 2))
    area = rng.uniform(100, 4000, 4).astype(np.float32)
    wanted = kpt_iou(torch.from_numpy(truth), torch.from_numpy(found), torch.from_numpy(area), sigmas_of(17))
    np.testing.assert_allclose(oks(truth, found, area), wanted.numpy(), rtol=1e-5, atol=1e-6)


def rotated_boxes(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    columns = [*rng.uniform(10, 80, (2, count)), *rng.uniform(3, 40, (2, count)), rng.uniform(-0.78, 2.35, count)]
    return np.stack(columns, axis=1).astype(np.float32)


def test_probiou_is_ultralytics() -> None:
    torch = pytest.importorskip("torch")
    from ultralytics.utils.metrics import batch_probiou

    a, b = rotated_boxes(20, 0), rotated_boxes(30, 1)
    wanted = batch_probiou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(probiou(a, b), wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize("task", [Task.OBB, Task.SEGMENT, Task.POSE])
def test_selection_is_ultralytics(task: Task, multi_label: bool) -> None:
    torch = pytest.importorskip("torch")
    from ultralytics.utils.nms import non_max_suppression

    outputs, info = outputs_of(task, seed=3), info_of(task)
    selection = Selection(conf=0.05, iou=0.5, max_det=50, multi_label=multi_label)
    found = spec_of(task).select(outputs, HeadLayout.DECODED, info, selection)
    (rows,) = non_max_suppression(
        torch.from_numpy(outputs[0].copy()), 0.05, 0.5, nc=3, max_det=50, multi_label=multi_label,
        rotated=task is Task.OBB,
    )  # fmt: skip
    rows = rows.numpy()
    np.testing.assert_allclose(found.confidence, rows[:, 4], rtol=1e-6)
    np.testing.assert_array_equal(found.class_id, rows[:, 5].astype(int))
    if task is Task.OBB:
        np.testing.assert_allclose(found.parts["rotated"], rows[:, [0, 1, 2, 3, 6]], rtol=1e-6)
    else:
        np.testing.assert_allclose(found.xyxy, rows[:, :4], rtol=1e-5, atol=1e-4)
    if task is Task.POSE:
        np.testing.assert_allclose(found.parts["keypoints"].reshape(len(rows), -1), rows[:, 6:], rtol=1e-6)
    if task is Task.SEGMENT:
        from ultralytics.utils.ops import process_mask

        boxes, weights = torch.from_numpy(rows[:, :4]), torch.from_numpy(rows[:, 6:])
        wanted = process_mask(torch.from_numpy(outputs[1][0]), weights, boxes, IMGSZ).numpy()
        ours = spec_of(task).reference(found, 0.0, place(IMGSZ, IMGSZ)).parts["masks"]
        assert (wanted != ours).mean() < 1e-4


def test_labelled_masks_are_ultralytics() -> None:
    torch = pytest.importorskip("torch")
    from ultralytics.data.utils import polygons2masks_overlap
    from ultralytics.utils.metrics import mask_iou as theirs
    from ultralytics.utils.ops import resample_segments

    rng = np.random.default_rng(0)
    polygons = [rng.uniform(0, 64, (n, 2)).astype(np.float32) for n in (3, 5, 9, 40)]
    dense = [_resampled(p, 1000) for p in polygons]
    for ours, wanted in zip(dense, resample_segments([p.copy() for p in polygons]), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-6)
    overlap, order = polygons2masks_overlap((64, 64), dense, downsample_ratio=4)
    masks = _fill(dense, (64, 64))
    for rank, index in enumerate(order):
        np.testing.assert_array_equal(masks[index], overlap == rank + 1)
    flat = torch.from_numpy(masks.reshape(4, -1).astype(np.float32))
    np.testing.assert_allclose(mask_iou(masks, masks), theirs(flat, flat).numpy(), rtol=1e-6)


def test_rotated_labels_come_back_as_their_corners() -> None:
    spec, info = spec_of(Task.OBB), ModelInfo(Task.OBB, ("a",), (64, 64))
    boxes = np.array([[30, 30, 20, 8, 0.5], [20, 40, 16, 10, -0.3]], np.float32)
    folder_free = corners_of(boxes) / 64
    from yoloquant.runtime.tasks.base import Labels

    labels = Labels(np.zeros(2, np.int64), np.zeros((2, 4), np.float32), {"corners": folder_free.astype(np.float32)})
    truth: Truth = spec.truth(labels, place((64, 64), (64, 64)), info)
    np.testing.assert_allclose(truth.parts["rotated"], boxes, atol=1e-3)


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        (Task.DETECT, "0 0.5 0.5 0.1", "4 columns; a label line is 'class x y width height'"),
        (Task.SEGMENT, "0 0.5 0.5 0.1 0.1", "a box without a polygon"),
        (Task.SEGMENT, "0 0.5 0.5", "a polygon of 1 points; it needs at least 3"),
        (Task.SEGMENT, "0 0.5 0.5 0.1 0.1 0.2", "are these labels of another task"),
        (Task.POSE, "0 0.5 0.5 0.1 0.1", "5 columns, a line of this model is .* 56 columns"),
        (Task.OBB, "0 0.5 0.5 0.1 0.1 0.3", "6 columns, a rotated box is"),
        (Task.OBB, "0 0.5 0.5 0.1 0.1 1.3 0.2 0.1 0.1", "outside 0 to 1"),
        (Task.SEGMENT, "7 0.5 0.5 0.1 0.1 0.2 0.3", "class 7 is out of range"),
    ],
)
def test_labels_of_another_task_are_refused_in_one_sentence(
    tmp_path: Path, task: Task, line: str, message: str
) -> None:
    path = tmp_path / "x.txt"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        spec_of(task).read_labels(path, info_of(task))


@pytest.mark.parametrize("task", [task for task in Task if task is not Task.CLASSIFY])
def test_an_image_without_objects_is_a_background(tmp_path: Path, task: Task) -> None:
    spec, info = spec_of(task), info_of(task)
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    for name in ("empty.txt", "absent.txt"):
        labels = spec.read_labels(tmp_path / name, info)
        truth = spec.truth(labels, place((48, 64), IMGSZ), info)
        assert len(labels.classes) == len(truth.classes) == 0
        assert all(len(part) == 0 for part in (*labels.parts.values(), *truth.parts.values()))


def test_a_pose_model_needs_the_keypoints_of_its_data() -> None:
    spec, info = spec_of(Task.POSE), info_of(Task.POSE)
    spec.check_data({"kpt_shape": [17, 3]}, "x.yaml", info)
    with pytest.raises(DataError, match="has no 'kpt_shape'"):
        spec.check_data({}, "x.yaml", info)
    with pytest.raises(DataError, match=r"kpt_shape \[4, 2\], the model \[17, 3\]"):
        spec.check_data({"kpt_shape": [4, 2]}, "x.yaml", info)
    with pytest.raises(DataError, match=r"kpt_shape '\[17, 3\]', the model \[17, 3\]"):
        spec.check_data({"kpt_shape": "[17, 3]"}, "x.yaml", info)
    with pytest.raises(DataError, match="without kpt_shape"):
        spec.check_data({}, "x.yaml", ModelInfo(Task.POSE, ("a",), IMGSZ))


@pytest.mark.parametrize("task", [Task.DETECT, Task.SEGMENT])
def test_keypoints_are_no_polygons(task: Task) -> None:
    spec = spec_of(task)
    spec.check_data({}, "x.yaml", info_of(task))
    with pytest.raises(DataError, match=r"describes keypoints \(kpt_shape\), but the model is a"):
        spec.check_data({"kpt_shape": [17, 2]}, "x.yaml", info_of(task))


def test_class_folders_are_matched_by_name_or_else_in_order(tmp_path: Path) -> None:
    spec = spec_of(Task.CLASSIFY)
    images = []
    for name in ("dog", "cat", "cow"):
        (tmp_path / name).mkdir()
        images.append(tmp_path / name / "1.jpg")
    by_name = spec.labels_of(images, ModelInfo(Task.CLASSIFY, ("cat", "dog"), IMGSZ), Path)
    assert [x.classes.tolist() for x in by_name] == [[1], [0], []]
    in_order = spec.labels_of(images, ModelInfo(Task.CLASSIFY, ("x", "y", "z"), IMGSZ), Path)
    assert [x.classes.tolist() for x in in_order] == [[2], [0], [1]]
    with pytest.raises(DataError, match="none named like one of the model's 2 classes"):
        spec.labels_of(images, ModelInfo(Task.CLASSIFY, ("x", "y"), IMGSZ), Path)


def test_top_k_counts_images() -> None:
    spec = spec_of(Task.CLASSIFY)
    order = [[0, 1, 2], [1, 0, 2], [2, 1, 0]]
    found = [Detections(np.zeros((3, 4)), np.array([0.6, 0.3, 0.1], np.float32), np.array(o)) for o in order]
    truths = [Truth(np.zeros((1, 4)), np.array([k]), np.zeros(1, int)) for k in (0, 0, 2)]
    values = spec.scores(found, {}, truths).values(np.array([[1.0, 1, 1], [1, 2, 0]]))
    np.testing.assert_allclose(values["top1"], [2 / 3, 1 / 3])
    np.testing.assert_allclose(values["top5"], [1, 1])


def test_a_class_that_results_lack_is_in_no_top_k() -> None:
    """Files of other programs may name fewer than five classes, or none at all."""
    spec = spec_of(Task.CLASSIFY)
    one = Detections(np.zeros((1, 4)), np.array([0.9], np.float32), np.array([2]))
    truth = Truth(np.zeros((1, 4)), np.array([0]), np.zeros(1, int), {"probabilities": np.array([[0.8, 0.1, 0.1]])})
    values = spec.scores([one, one.take(slice(0))], {}, [truth, truth]).values(np.ones((1, 2)))
    assert values["top1"] == values["top5"] == 0
    assert spec.fidelity([one, one.take(slice(0))], {}, [truth, truth]).values(np.ones((1, 2)))["fidelity"] == 0


@pytest.mark.parametrize("task", [Task.DETECT, Task.POSE, Task.OBB, Task.SEGMENT])
def test_results_come_back_from_their_records(task: Task) -> None:
    """What ``predict`` writes in original pixels is, moved into the input again, what was selected there."""
    spec, info = spec_of(task), info_of(task)
    where = place((90, 120), IMGSZ)
    found = spec.select(outputs_of(task), HeadLayout.DECODED, info, Selection(conf=0.3))
    inside = where.to_original(found.xyxy)
    keep = ((inside > 0) & (inside < np.array([120, 90, 120, 90]))).all(axis=1)
    found = found.take(keep)
    assert len(found) > 3
    original = spec.to_original(found, where)
    record = json.loads(json.dumps({"xyxy": original.xyxy.tolist(), **spec.record(original, (90, 120))}))
    parts = spec.read_record(record, len(found), info)
    again = spec.to_input(Detections(original.xyxy, found.confidence, found.class_id, parts), where)
    np.testing.assert_allclose(again.xyxy, found.xyxy, atol=0.01)
    for name in {"keypoints", "rotated"} & set(parts):
        np.testing.assert_allclose(spec.to_original(again, where).parts[name], original.parts[name], atol=0.01)
    if task is Task.SEGMENT:  # random masks are all edges, and edges are what resampling moves
        same = np.diag(spec.similarity("mask_", spec.reference(found, 0.0, where), again))
        assert np.median(same) > 0.7


def test_records_of_another_task_are_refused() -> None:
    for task in (Task.POSE, Task.OBB, Task.SEGMENT):
        with pytest.raises(DataError, match="another task's model"):
            spec_of(task).read_record({"xyxy": [[0, 0, 1, 1]]}, 1, info_of(task))
    with pytest.raises(DataError, match="finite numbers"):
        spec_of(Task.OBB).read_record({"rotated": [[1, 2, 3]]}, 1, info_of(Task.OBB))
