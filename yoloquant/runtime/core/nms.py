"""Non-maximum suppression in numpy, with the results of Ultralytics' ``non_max_suppression`` for upright boxes.

It follows the same steps in the same precision: candidates above the threshold in the order of their anchors, boxes
moved apart by class in float32, a stable sort by falling score, and torchvision's IoU. Only where scores tie at the
limit of ``max_nms`` candidates may other ones be left out, because torch sorts ties in no particular order.
"""

from __future__ import annotations

import numpy as np

MAX_WH = np.float32(7680)
"""Distance by which boxes of neighbouring classes are moved apart, in pixels."""
MAX_NMS = 30000
"""Candidates that suppression looks at, the best ones."""
BLOCK = 64
"""Boxes that are compared with all others at once."""


def non_max_suppression(
    prediction: np.ndarray,
    conf: float,
    iou: float,
    max_det: int,
    *,
    multi_label: bool = False,
    classes: int | None = None,
    max_nms: int = MAX_NMS,
) -> np.ndarray:
    """Select detections from a decoded head's output.

    Args:
        prediction: float32 (1, 4 + classes + further, anchors): xywh in pixels, scores, and what a task predicts
            besides, which is handed through.
        conf: Scores must be above it.
        iou: Overlap above which the weaker box of one class is dropped.
        max_det: Detections kept.
        multi_label: Whether a box may be found once for each class, as in validation, or only for its best one.
        classes: Number of classes; every row behind the boxes is one if None.
        max_nms: Candidates kept before suppression.

    Returns:
        float32 (n, 6 + further): x1, y1, x2, y2, score, class, further; by falling score.
    """
    table = prediction[0]
    behind = len(table) if classes is None else 4 + classes
    anchors, scores, labels = candidates(table[4:behind], conf, multi_label, max_nms)
    boxes = _corners(table[:4, anchors])
    keep = _suppress(boxes, labels, iou, max_det)
    return rows_of(boxes[:, keep], scores[keep], labels[keep], table[behind:, anchors[keep]])


def candidates(
    scores: np.ndarray, conf: float, multi_label: bool, max_nms: int = MAX_NMS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best anchors above a threshold.

    Args:
        scores: (classes, anchors).
        conf: Scores must be above it.
        multi_label: Whether an anchor counts once for each class.
        max_nms: Candidates kept.

    Returns:
        Index of the anchor, score and class of each, (n,), by falling score.
    """
    limit = np.float32(conf)
    # most anchors hold nothing: everything behind works on the few that do
    anchors = np.flatnonzero(scores.max(axis=0) > limit)
    chosen = np.ascontiguousarray(scores[:, anchors].T)
    if multi_label:
        rows, classes = np.nonzero(chosen > limit)
    else:
        rows, classes = np.arange(len(anchors)), chosen.argmax(axis=1)
    values = chosen[rows, classes]
    order = np.argsort(-values, kind="stable")[:max_nms]
    return anchors[rows[order]], values[order], classes[order]


def rows_of(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, further: np.ndarray) -> np.ndarray:
    """Rows of box, score, class and further values from boxes (4, n) and further (k, n): float32 (n, 6 + k)."""
    rows = np.empty((len(scores), 6 + len(further)), dtype=np.float32)
    rows[:, :4], rows[:, 4], rows[:, 5], rows[:, 6:] = boxes.T, scores, classes, further.T
    return rows


def _corners(xywh: np.ndarray) -> np.ndarray:
    """x1, y1, x2, y2 (4, n) of boxes (4, n) given by centre and size."""
    half = xywh[2:] / np.float32(2)
    return np.concatenate([xywh[:2] - half, xywh[:2] + half])


def _suppress(boxes: np.ndarray, classes: np.ndarray, iou: float, max_det: int) -> np.ndarray:
    """Indices of the boxes that are kept.

    Only boxes of one class can overlap once classes are moved apart, so each class is gone through on its own.

    Args:
        boxes: Corners, (4, n), by falling score.
        classes: Class of each, (n,).
        iou: Overlap above which the later box is dropped.
        max_det: Boxes kept.
    """
    # in float32 and by this very distance: rounding of far corners is part of Ultralytics' result
    moved = boxes + classes.astype(np.float32) * MAX_WH
    # boxes wider than the distance would overlap those of other classes in Ultralytics too
    group = classes if _apart(boxes) else np.zeros_like(classes)
    by_group = np.argsort(group, kind="stable")
    moved = moved[:, by_group]
    area = (moved[2] - moved[0]) * (moved[3] - moved[1])
    # (4, n) as x1, y1, -x2, -y2.
    edges = np.concatenate([moved[:2], -moved[2:]])  # so that one maximum finds all sides of an intersection
    keep = np.ones(len(classes), dtype=bool)
    # Where one class ends and the next begins, in the order of `by_group`.
    borders = np.flatnonzero(np.diff(group[by_group], prepend=-1, append=-1)).tolist()
    limit = _at_most(iou)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 of boxes without area overlaps nothing
        for start, end in zip(borders, borders[1:]):  # noqa: RUF007 - Python 3.8
            if end - start > 1:
                keep[start:end] = _greedy(edges[:, start:end], area[start:end], limit, max_det)
    # Sorted: indices are places by falling score, which going through class by class has mixed.
    return np.sort(by_group[keep])[:max_det]


def _greedy(edges: np.ndarray, area: np.ndarray, limit: np.float32, most: int) -> np.ndarray:
    """Which boxes of one class are kept; once there are enough, none of the others.

    The first few boxes left are compared with all boxes left at once, and decided one by one.

    Args:
        edges: x1, y1, -x2, -y2 (4, n) by falling score.
        area: Their areas, (n,).
        limit: Overlap above which the later box is dropped.
        most: Boxes that are enough.
    """
    keep = np.zeros(len(area), dtype=bool)
    left, count = np.arange(len(area)), 0
    while len(left) and count < most:
        size = min(BLOCK, len(left))
        overlap = _iou(edges, area, size) > limit
        # one integer for each box: deciding box by box with Python's integers needs no array operation per box
        bits = np.packbits(overlap[:, :size], axis=1, bitorder="little").tobytes()
        step, dropped, chosen = (size + 7) // 8, 0, []
        for index in range(size):
            if not dropped >> index & 1:
                chosen.append(index)
                dropped |= int.from_bytes(bits[index * step : (index + 1) * step], "little")
        keep[left[chosen]] = True
        count += len(chosen)
        # All boxes that were left have been decided.
        if size == len(left):
            break
        free = np.flatnonzero(~overlap[chosen, size:].any(axis=0)) + size
        left, edges, area = left[free], edges[:, free], area[free]
    return keep


def _iou(edges: np.ndarray, area: np.ndarray, size: int) -> np.ndarray:
    """IoU of the first few boxes with all, (size, n), in the order of operations of torchvision's kernel."""
    width = np.maximum(edges[0, :size, None], edges[0])
    width += np.maximum(edges[2, :size, None], edges[2])
    height = np.maximum(edges[1, :size, None], edges[1])
    height += np.maximum(edges[3, :size, None], edges[3])
    inner = np.minimum(width, 0, out=width)  # both negated, so the product is not
    inner *= np.minimum(height, 0, out=height)
    union = np.add(area[:size, None], area, out=height)
    union -= inner
    return np.asarray(np.divide(inner, union, out=inner))


def _apart(boxes: np.ndarray) -> bool:
    """Whether moving classes apart keeps every two of them from overlapping."""
    return boxes.size > 0 and bool(boxes[[0, 2]].max() - boxes[[0, 2]].min() < MAX_WH)


def _at_most(value: float) -> np.float32:
    """Largest float32 that is not above a float64, so that float32 values compare with it as with the float64."""
    near = np.float32(value)
    return near if float(near) <= value else np.nextafter(near, np.float32(-np.inf))
