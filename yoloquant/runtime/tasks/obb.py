"""Oriented boxes, compared as Gaussians (ProbIoU, https://arxiv.org/abs/2106.06072)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Dict, List, Tuple

import numpy as np

from ..core.decode import Anchors, sigmoid
from ..core.detections import Detections, Selection
from ..core.letterbox import Letterbox
from ..core.matching import Truth
from ..core.model_info import ModelInfo, Task
from ..core.nms import MAX_WH, candidates, rows_of
from ..errors import DataError
from ..io.labels import arrays, first_of_each, polygon_box, read_rows
from .anchors import AnchorTask, ap_metrics, numbers, plain
from .base import Drawn, Labels, Metric, Similarity

if TYPE_CHECKING:
    from ..io.draw import Painter
    from .base import Outputs

FORM = "'class x1 y1 x2 y2 x3 y3 x4 y4', four corners normalised to 0..1"
BLOCK = 512
"""Boxes that are compared with others at once."""


class RotatedBoxes(AnchorTask):
    """Oriented boxes.

    Results carry ``rotated``, float32 (n, 5): centre x, y, width, height, angle in radians; ``boxes`` are upright ones
    around them.
    """

    task: ClassVar[Task] = Task.OBB
    metrics: ClassVar[Tuple[Metric, ...]] = ap_metrics("", "")
    similarities: ClassVar[Tuple[Similarity, ...]] = (Similarity("", "rotated box"),)
    branches: ClassVar[Tuple[str, ...]] = ("box", "score", "angle")
    further: ClassVar[str] = "angles"
    noun: ClassVar[str] = "oriented detector"
    behind: ClassVar[str] = "the angle in radians; boxes are x, y, width, height before they turn"
    suppressed: ClassVar[bool] = False
    rotated: ClassVar[bool] = True

    # -- outputs

    def width(self, outputs: Outputs, info: ModelInfo) -> int:
        """The angle."""
        return 1

    def extend(self, anchors: Anchors, info: ModelInfo) -> np.ndarray:
        """Angles in radians."""
        raw = anchors.further[0]
        return raw if info.direct else np.asarray((sigmoid(raw) - np.float32(0.25)) * np.float32(np.pi), np.float32)

    def suppress(self, array: np.ndarray, classes: int, selection: Selection) -> np.ndarray:
        """Fast NMS as in Ultralytics: a box that a stronger one of its class overlaps goes, even if that goes too."""
        table = array[0]
        s = selection
        anchors, scores, labels = candidates(table[4 : 4 + classes], s.conf, s.multi_label)
        boxes = np.concatenate([table[:4, anchors], table[4 + classes :, anchors]]).T
        keep = _apart(boxes, labels, s.iou)[: s.max_det]
        return rows_of(boxes[keep, :4].T, scores[keep], labels[keep], boxes[keep, 4:].T)

    def finish(self, found: Detections, further: np.ndarray, outputs: Outputs, info: ModelInfo) -> Detections:
        """Rows as rotated boxes, and upright boxes around them."""
        # `suppress` hands the rows through as x, y, w, h, so what is called xyxy holds these until here.
        rotated = np.concatenate([found.xyxy, further], axis=1).astype(np.float32)
        return Detections(upright(rotated), found.confidence, found.class_id, {"rotated": rotated})

    def parts_to_original(self, found: Detections, where: Letterbox) -> Mapping[str, np.ndarray]:
        """Rotated boxes in original pixels; both sides are scaled alike, as the letterbox does."""
        rotated = found.parts["rotated"].copy()
        rotated[:, :2] = where.points_to_original(rotated[:, :2])
        rotated[:, 2:4] *= np.array(
            [where.original[1] / where.extent[1], where.original[0] / where.extent[0]], dtype=np.float32
        )
        return {"rotated": rotated}

    def to_input(self, found: Detections, where: Letterbox) -> Detections:
        """Rotated boxes in input pixels, and upright boxes around them."""
        parts = self.parts_to_input(found, where)
        return Detections(upright(parts["rotated"]), found.confidence, found.class_id, parts)

    def parts_to_input(self, found: Detections, where: Letterbox) -> Mapping[str, np.ndarray]:
        """Rotated boxes in input pixels."""
        rotated = np.array(found.parts["rotated"], dtype=np.float32)
        size = np.array([where.original[1], where.original[0]], np.float32)
        rotated[:, :2] = where.points_to_input(rotated[:, :2] / size)
        rotated[:, 2:4] *= np.array([where.extent[1], where.extent[0]], np.float32) / size
        return {"rotated": rotated}

    def read_record(self, record: Mapping[str, Any], count: int, info: ModelInfo) -> Mapping[str, np.ndarray]:
        """Centre, sides and angle."""
        return {"rotated": numbers(record, "rotated", (count, 5))}

    # -- scoring

    def read_labels(self, path: Path, info: ModelInfo) -> Labels:
        """Four corners."""
        rows = read_rows(path, len(info.names), FORM)
        for row in rows:
            if len(row.values) != 8:
                raise DataError(
                    f"{row.where}: {len(row.values) + 1} columns, a rotated box is {FORM}; a centre with an angle or "
                    "labels of another task must be converted"
                )
            row.check_inside(row.values)
        # Upright boxes as well: they decide what counts as small, medium or large.
        classes, boxes = arrays(rows, [polygon_box(row.values) for row in rows])
        corners = np.array([row.values for row in rows], np.float32).reshape(-1, 4, 2)
        keep = first_of_each(rows)
        return Labels(classes[keep], boxes[keep], {"corners": corners[keep]})

    def label_line(self, drawn: Drawn, size: Tuple[int, int]) -> List[float]:
        """The four corners, or those of the smallest rectangle around a polygon of more."""
        import cv2

        if not drawn.polygons:
            raise DataError("has no polygon, which says how a rotated box lies")
        corners = drawn.polygons[0]
        if len(corners) != 4:
            corners = cv2.boxPoints(cv2.minAreaRect(corners.astype(np.float32)))
        # The smallest rectangle may reach beyond the image, where no label may lie.
        return list((np.clip(corners, 0, (size[1], size[0])) / (size[1], size[0])).ravel())

    def truth_parts(self, labels: Labels, where: Letterbox, info: ModelInfo) -> Mapping[str, np.ndarray]:
        """The smallest rotated boxes around the corners, in input pixels."""
        corners = where.points_to_input(labels.parts["corners"])
        return {"rotated": np.array([_smallest(c) for c in corners], np.float32).reshape(-1, 5)}

    def similarity(self, prefix: str, truth: Truth, found: Detections) -> np.ndarray:
        """ProbIoU."""
        return probiou(truth.parts["rotated"], found.parts["rotated"])

    # -- for people

    def draw(self, painter: Painter, image: np.ndarray, found: Detections) -> None:
        """Rotated boxes with labels."""
        painter.polygons(image, corners_of(found.parts["rotated"]), found)

    def record(self, found: Detections, size: Tuple[int, int]) -> Dict[str, List[Any]]:
        """Centre, sides and angle; and the corners."""
        rotated = found.parts["rotated"]
        return {"rotated": plain(rotated, 4), "corners": [plain(c, 2) for c in corners_of(rotated)]}

    def outlines(self, found: Detections, where: Letterbox) -> List[List[List[List[float]]]]:
        """The four sides, closed."""
        corners = where.points_to_original(corners_of(found.parts["rotated"])).astype(float).round(1)
        return [[[*four.tolist(), four[0].tolist()]] for four in corners]


def corners_of(rotated: np.ndarray) -> np.ndarray:
    """Corners (n, 4, 2) of rotated boxes (n, 5), in turn."""
    cos, sin = np.cos(rotated[:, 4:5]), np.sin(rotated[:, 4:5])
    along = np.concatenate([cos, sin], axis=1) * rotated[:, 2:3] / 2
    across = np.concatenate([-sin, cos], axis=1) * rotated[:, 3:4] / 2
    signs = ((1, 1), (1, -1), (-1, -1), (-1, 1))
    return np.stack([rotated[:, :2] + a * along + b * across for a, b in signs], axis=1)


def upright(rotated: np.ndarray) -> np.ndarray:
    """The upright boxes (n, 4), xyxy, around rotated ones (n, 5)."""
    corners = corners_of(rotated)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32).reshape(-1, 4)


def probiou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One less the Hellinger distance of boxes taken as Gaussians: (m, 5) and (n, 5) give float32 (m, n).

    In single precision and in the order of operations of Ultralytics' ``batch_probiou``.
    """
    small = np.float32(1e-7)
    a1, b1, c1 = (v[:, None] for v in _covariance(a))
    a2, b2, c2 = (v[None] for v in _covariance(b))
    dx, dy = a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1]
    sum_a, sum_b, sum_c = a1 + a2, b1 + b2, c1 + c2
    determinant = sum_a * sum_b - np.square(sum_c)
    t1 = (sum_a * np.square(dy) + sum_b * np.square(dx)) / (determinant + small) * np.float32(0.25)
    t2 = sum_c * -dx * dy / (determinant + small) * np.float32(0.5)
    # Clamped as in Ultralytics: rounding may make the determinant of a thin box negative.
    own = np.maximum(a1 * b1 - np.square(c1), 0) * np.maximum(a2 * b2 - np.square(c2), 0)
    t3 = np.log(determinant / (4 * np.sqrt(own) + small) + small) * np.float32(0.5)
    distance = np.clip(t1 + t2 + t3, small, np.float32(100))
    return np.asarray(1 - np.sqrt(1 - np.exp(-distance) + small), dtype=np.float32)


def _covariance(boxes: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variances along x and y and the covariance of boxes (n, 5), as float32 (n,)."""
    boxes = boxes.astype(np.float32)
    along, across = np.square(boxes[:, 2]) / 12, np.square(boxes[:, 3]) / 12
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    cos2, sin2 = np.square(cos), np.square(sin)
    return along * cos2 + across * sin2, along * sin2 + across * cos2, (along - across) * cos * sin


def _apart(boxes: np.ndarray, classes: np.ndarray, iou: float) -> np.ndarray:
    """Indices of rotated boxes (n, 5), by falling score, that no earlier one of their class overlaps."""
    keep = np.ones(len(boxes), dtype=bool)
    for kind in np.unique(classes).tolist():
        rows = np.flatnonzero(classes == kind)
        moved = boxes[rows].copy()
        # Each class is looked at alone, but in the far corner that Ultralytics moves it to, with its rounding.
        moved[:, :2] += np.float32(kind) * MAX_WH
        # In blocks: 30,000 candidates against one another would be gigabytes.
        for start in range(0, len(rows), BLOCK):
            block = slice(start, min(start + BLOCK, len(rows)))
            overlap = probiou(moved[: block.stop], moved[block]) > iou
            # Only stronger boxes count, and not a box itself.
            overlap &= np.arange(block.stop)[:, None] < np.arange(block.start, block.stop)[None]
            keep[rows[block]] = ~overlap.any(axis=0)
    return np.flatnonzero(keep)


def _smallest(corners: np.ndarray) -> Tuple[float, ...]:
    """Centre, sides and angle of the smallest rotated box around points (4, 2)."""
    import cv2

    (x, y), (width, height), degrees = cv2.minAreaRect(corners.astype(np.float32))
    angle = degrees / 180 * np.pi
    # The longer side is the width there, and angles go from -45 to 135 degrees (`xyxyxyxy2xywhr`).
    if width < height:
        width, height, angle = height, width, angle + np.pi / 2
    return x, y, width, height, (angle + np.pi / 4) % np.pi - np.pi / 4
