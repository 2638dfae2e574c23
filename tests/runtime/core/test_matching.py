"""Matching equals Ultralytics', and ignores by size as pycocotools does."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yoloquant.runtime.core.detections import Detections
from yoloquant.runtime.core.matching import IGNORED, IOU_THRESHOLDS, RIGHT, WRONG, Truth, box_iou, match, size_index


def _boxes(rng: np.random.Generator, count: int, spread: float) -> np.ndarray:
    """Boxes in a small area, so that many overlap."""
    corner = rng.random((count, 2)) * spread
    return np.concatenate([corner, corner + 20 + 20 * rng.random((count, 2))], axis=1).astype(np.float32)


def _case(seed: int, found: int, truths: int) -> tuple[Detections, Truth]:
    rng = np.random.default_rng(seed)
    boxes = _boxes(rng, truths, 60)
    near = (
        boxes[rng.integers(0, truths, found)] + rng.normal(0, 3, (found, 4)).astype(np.float32)
        if truths
        else (_boxes(rng, found, 60))
    )
    scores = np.sort(rng.random(found).astype(np.float32))[::-1]
    truth = Truth(boxes, rng.integers(0, 2, truths), size_index(boxes, 1.0))
    return Detections(near.astype(np.float32), scores, rng.integers(0, 2, found)), truth


@given(st.integers(0, 2**32 - 1), st.integers(0, 25), st.integers(0, 8))
@settings(max_examples=80, deadline=None)
def test_equals_ultralytics(seed: int, found: int, truths: int) -> None:
    import torch
    from ultralytics.engine.validator import BaseValidator
    from ultralytics.utils import metrics

    detections, truth = _case(seed, found, truths)
    iou = metrics.box_iou(torch.from_numpy(truth.boxes), torch.from_numpy(detections.xyxy))
    np.testing.assert_allclose(box_iou(truth.boxes, detections.xyxy), iou.numpy(), atol=1e-6)
    host = SimpleNamespace(iouv=torch.linspace(0.5, 0.95, 10))
    expected = BaseValidator.match_predictions(
        host, torch.from_numpy(detections.class_id), torch.from_numpy(truth.classes), iou
    )
    got = match(detections, truth, 1.0)
    np.testing.assert_array_equal(got.status[:, 0] == RIGHT, expected.numpy())
    np.testing.assert_array_equal(got.partner >= 0, expected.numpy()[:, 0])


@given(st.integers(0, 2**32 - 1), st.integers(1, 25), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_each_truth_is_taken_once(seed: int, found: int, truths: int) -> None:
    detections, truth = _case(seed, found, truths)
    got = match(detections, truth, 1.0)
    taken = got.partner[got.partner >= 0]
    assert len(set(taken.tolist())) == len(taken)
    assert (detections.class_id[got.partner >= 0] == truth.classes[taken]).all()
    assert (got.overlap[got.partner >= 0] >= IOU_THRESHOLDS[0]).all()
    for size in range(3):
        right = (got.status[:, 1 + size] == RIGHT).sum(axis=0)
        assert (right <= (truth.sizes == size).sum()).all()


def _coco_reference(found: Detections, truth: Truth, size: int, threshold: float) -> list[int]:
    """COCOeval.evaluateImg written out for one size range and one threshold."""
    outside = truth.sizes != size
    order = sorted(range(len(truth.classes)), key=lambda g: bool(outside[g]))
    iou = box_iou(found.xyxy, truth.boxes)
    sizes = size_index(found.xyxy, 1.0)
    used: set[int] = set()
    result = []
    for d in range(len(found)):
        best, chosen = min(threshold, 1 - 1e-10), -1
        for g in order:
            if g in used or truth.classes[g] != found.class_id[d]:
                continue
            if chosen > -1 and not outside[chosen] and outside[g]:
                break
            if iou[d, g] < best or (chosen > -1 and iou[d, g] <= best):
                continue
            best, chosen = iou[d, g], g
        if chosen == -1:
            result.append(IGNORED if sizes[d] != size else WRONG)
        else:
            used.add(chosen)
            result.append(IGNORED if outside[chosen] else RIGHT)
    return result


@given(st.integers(0, 2**32 - 1), st.integers(0, 20), st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_sizes_equal_coco(seed: int, found: int, truths: int) -> None:
    detections, truth = _case(seed, found, truths)
    got = match(detections, truth, 1.0)
    for size in range(3):
        for t, threshold in enumerate(IOU_THRESHOLDS):
            assert got.status[:, 1 + size, t].tolist() == _coco_reference(detections, truth, size, float(threshold))


@pytest.mark.parametrize(("side", "scale", "size"), [(31.9, 1, 0), (32, 1, 1), (95.9, 1, 1), (96, 1, 2), (31.9, 4, 1)])
def test_sizes_are_coco_areas_in_original_pixels(side: float, scale: float, size: int) -> None:
    assert size_index(np.array([[0, 0, side, side]]), scale).tolist() == [size]
