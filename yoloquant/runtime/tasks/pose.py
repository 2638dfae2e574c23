"""Pose estimation: boxes with keypoints, compared by object keypoint similarity (https://cocodataset.org/#keypoints-eval)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Dict, List, Tuple

import numpy as np

from ..core.decode import Anchors, sigmoid
from ..core.detections import Detections
from ..core.letterbox import Letterbox
from ..core.matching import Truth, box_iou
from ..core.model_info import ModelInfo, Task
from ..errors import DataError
from ..io.labels import arrays, first_of_each, read_rows
from .anchors import BOX, AnchorTask, ap_metrics, numbers, plain
from .base import Drawn, Labels, Metric, Similarity

if TYPE_CHECKING:
    from ..io.draw import Painter
    from .base import Outputs

COCO_SIGMAS = np.array(
    [0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89], np.float32
) / np.float32(10)
"""How far annotators of COCO are apart at each of a person's 17 keypoints, as a share of the object's size."""
AREA = np.float32(0.53)
"""Share of a box that its object covers on average, in xtcocotools and Ultralytics."""
VISIBLE = 0.5
"""Visibility above which a predicted keypoint is drawn, and counts where another model is scored against it."""
COCO_LIMBS = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8)),
    *((7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)
"""Pairs of COCO's keypoints that are joined by a line."""


class Pose(AnchorTask):
    """Boxes with keypoints.

    Results carry ``keypoints``, float32 (n, keypoints, 2 or 3): x, y, and the visibility 0 to 1 where the model has it.
    """

    task: ClassVar[Task] = Task.POSE
    metrics: ClassVar[Tuple[Metric, ...]] = (*ap_metrics("", "box "), *ap_metrics("pose_", "pose "))
    similarities: ClassVar[Tuple[Similarity, ...]] = (BOX, Similarity("pose_", "keypoints", "keypoints"))
    branches: ClassVar[Tuple[str, ...]] = ("box", "score", "keypoint")
    apart: ClassVar[Tuple[str, ...]] = ("visibility",)
    further: ClassVar[str] = "keypoints"
    keypointed: ClassVar[bool] = True
    noun: ClassVar[str] = "pose model"
    behind: ClassVar[str] = "x, y and visibility (if the model has it) of each keypoint, in the unit of the box"

    # -- outputs

    def width(self, outputs: Outputs, info: ModelInfo) -> int:
        """Numbers of all keypoints."""
        count, values = shape_of(info)
        return count * values

    def extend(self, anchors: Anchors, info: ModelInfo) -> np.ndarray:
        """Keypoints in pixels, with visibility."""
        count, values = shape_of(info)
        rows = [part.reshape(len(part), count, part.shape[1] // count) for part in anchors.further]
        raw = np.concatenate(rows, axis=2)
        points, steps = anchors.points[:, None], anchors.steps[:, None, None]
        # Earlier heads regress twice the distance from a cell's corner, YOLO26 the distance from its centre.
        near = raw[..., :2] + points if info.direct else raw[..., :2] * np.float32(2) + (points - np.float32(0.5))
        parts = [near * steps] if values == 2 else [near * steps, sigmoid(raw[..., 2:])]
        return np.concatenate(parts, axis=2).reshape(len(raw), count * values)

    def further_to_pixels(self, values: np.ndarray, info: ModelInfo) -> None:
        """X and y times the input's width and height."""
        step = shape_of(info)[1]
        values[:, 0::step] *= np.float32(info.imgsz[1])
        values[:, 1::step] *= np.float32(info.imgsz[0])

    def finish(self, found: Detections, further: np.ndarray, outputs: Outputs, info: ModelInfo) -> Detections:
        """Rows as keypoints."""
        return found.with_parts(keypoints=further.reshape(-1, *shape_of(info)).copy())

    def parts_to_original(self, found: Detections, where: Letterbox) -> Mapping[str, np.ndarray]:
        """Keypoints in original pixels, clipped to the image."""
        keypoints = found.parts["keypoints"].copy()
        size = np.array([where.original[1], where.original[0]], np.float32)
        keypoints[..., :2] = np.clip(where.points_to_original(keypoints[..., :2]), 0, size)
        return {"keypoints": keypoints}

    def parts_to_input(self, found: Detections, where: Letterbox) -> Mapping[str, np.ndarray]:
        """Keypoints in input pixels."""
        keypoints = np.array(found.parts["keypoints"], dtype=np.float32)
        size = np.array([where.original[1], where.original[0]], np.float32)
        keypoints[..., :2] = where.points_to_input(keypoints[..., :2] / size)
        return {"keypoints": keypoints}

    def read_record(self, record: Mapping[str, Any], count: int, info: ModelInfo) -> Mapping[str, np.ndarray]:
        """Rows of x, y and visibility."""
        return {"keypoints": numbers(record, "keypoints", (count, *shape_of(info)))}

    # -- scoring

    def check_data(self, content: Mapping[str, Any], source: str, info: ModelInfo) -> None:
        """The data must have the model's keypoints."""
        wanted, got = list(shape_of(info)), content.get("kpt_shape")
        if got is None:
            raise DataError(f"data yaml {source} has no 'kpt_shape'; a pose model needs it, here 'kpt_shape: {wanted}'")
        if got != wanted:
            raise DataError(
                f"data yaml {source} has kpt_shape {got!r}, the model {wanted}; score it on data of its own"
            )

    def read_labels(self, path: Path, info: ModelInfo) -> Labels:
        """A box and its keypoints."""
        count, values = shape_of(info)
        form = f"'class x y width height' and {count} keypoints of {values} numbers, normalised to 0..1"
        rows = read_rows(path, len(info.names), form)
        for row in rows:
            if len(row.values) != 4 + count * values:
                raise DataError(
                    f"{row.where}: {len(row.values) + 1} columns, a line of this model is {form}, "
                    f"{5 + count * values} columns; are these labels of another task or keypoint shape?"
                )
            points = np.array(row.values[4:]).reshape(count, values)
            row.check_inside(row.values[:4])
            # Without visibility, which is 0, 1 or 2 and no coordinate.
            row.check_inside(points[:, :2].ravel().tolist())
            row.check_size()
        classes, boxes = arrays(rows, [row.values[:4] for row in rows])
        keypoints = np.array([row.values[4:] for row in rows], np.float32).reshape(-1, count, values)
        keep = first_of_each(rows)
        return Labels(classes[keep], boxes[keep], {"keypoints": _with_visibility(keypoints[keep])})

    def label_line(self, drawn: Drawn, size: Tuple[int, int]) -> List[float]:
        """The box and the keypoints."""
        if drawn.keypoints is None:
            raise DataError("has no keypoints, which a pose model is scored by")
        return [*drawn.xywh(size), *(drawn.keypoints / (size[1], size[0], 1)).ravel()]

    def truth_parts(self, labels: Labels, where: Letterbox, info: ModelInfo) -> Mapping[str, np.ndarray]:
        """Keypoints in input pixels, and the tolerance of each."""
        keypoints = labels.parts["keypoints"].copy()
        keypoints[..., :2] = where.points_to_input(keypoints[..., :2])
        return {"keypoints": keypoints}

    def reference_parts(self, found: Detections, where: Letterbox) -> Mapping[str, np.ndarray]:
        """Keypoints that the model sees count; all of them where it sees none."""
        keypoints = _with_visibility(found.parts["keypoints"])
        seen = keypoints[..., 2] > VISIBLE
        seen |= ~seen.any(axis=1, keepdims=True)
        keypoints[..., 2] = seen
        return {"keypoints": keypoints}

    def similarity(self, prefix: str, truth: Truth, found: Detections) -> np.ndarray:
        """IoU of the boxes, or object keypoint similarity."""
        if not prefix:
            return box_iou(truth.boxes, found.xyxy)
        if not len(truth.classes) or not len(found):
            return np.zeros((len(truth.classes), len(found)), np.float32)
        sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
        return oks(truth.parts["keypoints"], found.parts["keypoints"], sides.prod(axis=1) * AREA)

    # -- for people

    def draw(self, painter: Painter, image: np.ndarray, found: Detections) -> None:
        """Boxes with skeletons."""
        painter.boxes(image, found)
        for points in _with_visibility(found.parts["keypoints"]):
            seen = points[:, 2] > VISIBLE
            painter.skeleton(image, points[:, :2], seen, limbs_of(len(points)))

    def record(self, found: Detections, size: Tuple[int, int]) -> Dict[str, List[Any]]:
        """Keypoints as rows of x, y and visibility."""
        return {"keypoints": [plain(points, 3) for points in found.parts["keypoints"]]}

    def outlines(self, found: Detections, where: Letterbox) -> List[List[List[List[float]]]]:
        """Limbs between keypoints that are seen."""
        result = []
        for points in _with_visibility(found.parts["keypoints"]):
            xy = where.points_to_original(points[:, :2]).astype(float).round(1).tolist()
            seen = points[:, 2] > VISIBLE
            result.append([[xy[a], xy[b]] for a, b in limbs_of(len(points)) if seen[a] and seen[b]])
        return result


def shape_of(info: ModelInfo) -> Tuple[int, int]:
    """Number of keypoints and of values of each.

    Raises:
        DataError: Nobody told.
    """
    if info.kpt_shape is None:
        raise DataError(
            "the model is a pose model without kpt_shape; give 'kpt_shape: [keypoints, 2 or 3]' where it was trained"
        )
    return info.kpt_shape


def oks(truth: np.ndarray, found: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Object keypoint similarity.

    Args:
        truth: float32 (m, keypoints, 3): x, y, and 0 for keypoints that do not count.
        found: float32 (n, keypoints, 2 or 3).
        area: Areas of the true objects in square pixels, (m,).

    Returns:
        float32 (m, n): the mean of exp(-d² / (2 area (2 sigma)²)) over keypoints that count.
    """
    small = np.float32(1e-7)
    sigmas = sigmas_of(truth.shape[1])
    distance = np.square(truth[:, None, :, :2] - found[None, :, :, :2]).sum(axis=3)
    # As pycocotools computes it, not as COCO's page writes it; Ultralytics' `kpt_iou` does the same.
    error = distance / (np.square(2 * sigmas) * (area[:, None, None] + small) * 2)
    # 0 is "not labelled" in COCO; hidden keypoints (1) count.
    counts = truth[..., 2] != 0
    total = (np.exp(-error) * counts[:, None]).sum(axis=2)
    return np.asarray(total / (counts.sum(axis=1)[:, None] + small), dtype=np.float32)


def sigmas_of(count: int) -> np.ndarray:
    """Tolerance of each keypoint: COCO's for its 17, else equal shares as Ultralytics has them."""
    return COCO_SIGMAS if count == len(COCO_SIGMAS) else np.full(count, 1 / count, np.float32)


def limbs_of(count: int) -> Sequence[Tuple[int, int]]:
    """Pairs of keypoints that are joined by a line."""
    return COCO_LIMBS if count == len(COCO_SIGMAS) else ()


def _with_visibility(keypoints: np.ndarray) -> np.ndarray:
    """Keypoints (n, k, 3): with two values each, those at negative places are not visible."""
    if keypoints.shape[2] == 3:
        return np.array(keypoints, dtype=np.float32)
    seen = (keypoints >= 0).all(axis=2, keepdims=True)
    return np.concatenate([keypoints, seen], axis=2).astype(np.float32)
