"""What the best epoch is chosen by counts confidences that move, which a ranking does not see."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from task_outputs import outputs_of

from yoloquant.runtime.core.detections import Detections
from yoloquant.runtime.tasks import spec_of
from yoloquant.training.qat.history import EpochScores
from yoloquant.training.qat.scores import Capture, agreement
from yoloquant.types import Task

DETECT = spec_of(Task.DETECT)


def found(scores: list[float], offset: float = 0.0) -> Detections:
    boxes = np.array([[i * 50 + offset, 10, i * 50 + 40 + offset, 60] for i in range(len(scores))], np.float32)
    return Detections(boxes.reshape(-1, 4), np.array(scores, np.float32), np.zeros(len(scores), np.int64))


def test_shrunk_confidences_cost_no_fidelity_but_shift() -> None:
    reference = [found([0.9, 0.6, 0.3]), found([0.8])]
    shrunk = [found([0.8, 0.5, 0.2]), found([0.7])]
    less, same = agreement(shrunk, reference, DETECT), agreement(reference, reference, DETECT)
    assert less.fidelity == pytest.approx(same.fidelity) and same.fidelity == pytest.approx(0.995)
    assert less.shift == pytest.approx(-0.1, abs=1e-6) and same.shift == 0


def test_only_pairs_with_the_float_models_confident_ones_count() -> None:
    assert agreement([found([0.9, 0.1])], [found([0.9, 0.2])], DETECT).shift == 0  # 0.2 is not confident
    assert agreement([found([0.9], offset=500)], [found([0.9])], DETECT).shift == 0  # nothing matches
    nothing = agreement([], [], DETECT)
    assert (nothing.fidelity, nothing.shift) == (0, 0)


def captured(task: Task, damage: float) -> list[Detections]:
    """What a validator of Ultralytics returns for two images of a task, as it is kept; ``damage`` spoils what is not a
    box or a score of one."""
    rng = np.random.default_rng(0)
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0], [20.0, 30.0, 60.0, 60.0]])
    parts: dict[Task, dict[str, torch.Tensor]] = {
        Task.SEGMENT: {"masks": torch.tensor(rng.random((2, 16, 16)) < 0.6 + damage)},
        Task.POSE: {"keypoints": torch.tensor(rng.random((2, 5, 3)) * 40) + 200 * damage},
    }
    if task is Task.CLASSIFY:
        probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
        results: object = probabilities if damage == 0 else probabilities.flip(1)
    elif task is Task.OBB:
        long = torch.tensor([[20.0, 20.0, 40.0, 8.0], [40.0, 45.0, 40.0, 6.0]])  # a square would look the same turned
        turned = torch.cat([long, torch.tensor([[0.2 + damage], [0.6 + damage]])], 1)
        results = [{"bboxes": turned, "conf": torch.tensor([0.6, 0.9]), "cls": torch.tensor([0.0, 1.0])}] * 2
    else:
        one = {"bboxes": boxes, "conf": torch.tensor([0.6, 0.9]), "cls": torch.tensor([0.0, 1.0])}
        image = {**one, **parts.get(task, {})}
        results = [image, {key: value[:0] for key, value in image.items()}]
    capture = Capture(lambda preds: preds)
    assert capture(results) is results
    return capture.found


@pytest.mark.parametrize("task", list(Task))
def test_every_tasks_own_fidelity_chooses(task: Task) -> None:
    spec, reference = spec_of(task), captured(task, 0)
    assert agreement(reference, reference, spec).fidelity == pytest.approx(1 if task is Task.CLASSIFY else 0.995)
    spoilt = agreement(captured(task, 0.3), reference, spec)
    if task is Task.DETECT:
        assert spoilt.fidelity == pytest.approx(0.995)  # there is nothing but boxes and scores
    else:
        assert spoilt.fidelity < 0.9


@pytest.mark.parametrize("task", list(Task))
def test_what_ultralytics_validators_return_is_kept_whole(task: Task) -> None:
    from ultralytics.models import yolo
    from ultralytics.utils import ops

    kinds = {
        Task.DETECT: yolo.detect.DetectionValidator,
        Task.SEGMENT: yolo.segment.SegmentationValidator,
        Task.POSE: yolo.pose.PoseValidator,
        Task.OBB: yolo.obb.OBBValidator,
        Task.CLASSIFY: yolo.classify.ClassificationValidator,
    }
    validator: Any = kinds[task].__new__(kinds[task])
    validator.args = SimpleNamespace(
        task=task.value, conf=0.001, iou=0.7, single_cls=False, agnostic_nms=False, max_det=300, nms=None, half=False
    )
    validator.nc, validator.lb, validator.end2end, validator.device = 3, [], False, "cpu"
    validator.process, validator.kpt_shape = ops.process_mask, [17, 3]
    outputs = [torch.from_numpy(one) for one in outputs_of(task)]
    capture = Capture(validator.postprocess)
    capture(((outputs[0], outputs[1]), None) if task is Task.SEGMENT else outputs[0])
    if not capture.usable:
        pytest.skip("this release of Ultralytics returns bare rows")
    assert len(capture.found) == 1 and len(capture.found[0]) > 2
    same = agreement(capture.found, capture.found, spec_of(task))
    assert same.fidelity == pytest.approx(1, abs=0.006) and same.shift == 0


def test_the_log_says_what_selects() -> None:
    start = EpochScores(0, {"metrics/mAP50-95(B)": 0.4}, None, 0.95, 0.95 - 0.04, -0.04)
    better = EpochScores(1, {"metrics/mAP50-95(B)": 0.4}, None, 0.94, 0.94 - 0.01, 0.01)
    assert better.fitness > start.fitness and better.fidelity is not None and start.fidelity is not None
    assert "confidence shift +0.0100 (selected by fidelity - |shift|: 0.9300, calibrated 0.9100)" in better.line(start)
    assert better.metrics()["confidence_shift"] == 0.01
    by_map = EpochScores(1, {"metrics/mAP50-95(B)": 0.4}, None, 0.94, 0.4, 0.01)
    assert "selected by fitness: 0.4000" in by_map.line(start)
