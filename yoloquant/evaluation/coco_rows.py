"""Labels and results as pycocotools wants them: boxes, masks as run lengths, keypoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..runtime.tasks.pose import AREA, sigmas_of
from .evaluate import Evaluation

Row = dict[str, Any]


def ground_truth(evaluation: Evaluation, kind: str) -> dict[str, Any]:
    """What ``COCO.dataset`` holds: images, categories and annotations, crowd regions among them.

    Args:
        evaluation: What was measured.
        kind: What pycocotools calls the comparison.
    """
    annotations: list[Row] = []
    for index, image in enumerate(evaluation.data.images):
        height, width = evaluation.letterboxes[index].original
        x, y, w, h = (image.boxes.astype(np.float64) * [width, height, width, height]).T
        boxes = np.stack([x - w / 2, y - h / 2, w, h], axis=1)
        # Of the box: sizes are not told apart, but pycocotools wants a number.
        rows: list[Row] = [{"bbox": box, "area": box[2] * box[3]} for box in boxes.tolist()]
        LABELS[kind](rows, image.labels.parts, (height, width))
        for row, label in zip(rows, image.classes.tolist(), strict=True):
            row.update(category_id=label, iscrowd=0)
        crowds = evaluation.data.crowds.get(image.path.name, ())
        rows += [_crowd(corners, int(label), keypoint_count(evaluation)) for label, *corners in crowds]
        for row in rows:
            # An annotation with id 0 is never found.
            annotations.append({"id": len(annotations) + 1, "image_id": index, **row})
    images = [{"id": i, "width": w.original[1], "height": w.original[0]} for i, w in enumerate(evaluation.letterboxes)]
    categories = [{"id": i, "name": name} for i, name in enumerate(evaluation.names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _no_parts(rows: list[Row], parts: Mapping[str, np.ndarray], size: tuple[int, int]) -> None:
    pass


def _polygons(rows: list[Row], parts: Mapping[str, np.ndarray], size: tuple[int, int]) -> None:
    for row, polygon in zip(rows, parts["polygons"], strict=True):
        row["segmentation"] = [(polygon.astype(np.float64) * [size[1], size[0]]).ravel().tolist()]


def _keypoints(rows: list[Row], parts: Mapping[str, np.ndarray], size: tuple[int, int]) -> None:
    for row, points in zip(rows, parts["keypoints"].astype(np.float64), strict=True):
        row["keypoints"] = (points * [size[1], size[0], 1]).ravel().tolist()
        row["num_keypoints"] = int((points[:, 2] > 0).sum())
        row["area"] *= float(AREA)


LABELS: dict[str, Callable[[list[Row], Mapping[str, np.ndarray], tuple[int, int]], None]] = {
    "bbox": _no_parts,
    "segm": _polygons,
    "keypoints": _keypoints,
}
"""What labels have besides boxes, by what pycocotools calls the comparison."""


def _crowd(corners: list[float], label: int, points: int) -> Row:
    """A crowd region, which is a box here whatever is compared."""
    left, top, right, bottom = corners
    return {
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "category_id": label,
        "iscrowd": 1,
        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
        "keypoints": [0] * 3 * points,
        "num_keypoints": 0,
    }


def result_rows(evaluation: Evaluation, name: str, kind: str) -> Any:
    """A model's results: boxes as rows of image, x, y, width, height, score and class; others as a list of dicts."""
    tables = []
    for index, found in enumerate(evaluation.records[name].detections):
        boxes = evaluation.letterboxes[index].to_original(found.xyxy).astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        ids = np.full(len(boxes), float(index))
        tables.append(np.column_stack([ids, boxes, found.confidence, found.class_id]))
    rows = np.concatenate(tables) if tables else np.zeros((0, 7))
    if kind not in RESULTS:
        return rows
    key, read = RESULTS[kind]
    parts = [part for each in evaluation.records[name].parts for part in each[key]]
    return [
        {"image_id": int(row[0]), "category_id": int(row[6]), "score": float(row[5]), **read(part)}
        for row, part in zip(rows, parts, strict=True)
    ]


def _flat(points: Any) -> Row:
    """Keypoints of x, y and a third value, whatever a model gives there: it is not compared."""
    values = np.asarray(points, np.float64)[:, :2]
    return {"keypoints": np.column_stack([values, np.ones(len(values))]).ravel().tolist()}


RESULTS: dict[str, tuple[str, Callable[[Any], Row]]] = {
    "segm": ("masks", lambda mask: {"segmentation": mask}),
    "keypoints": ("keypoints", _flat),
}
"""Where results have what is compared, and how it is written, by what pycocotools calls the comparison."""


def keypoint_count(evaluation: Evaluation) -> int:
    """Keypoints of an object; 0 where there are none."""
    parts = evaluation.data.images[0].labels.parts
    return int(parts["keypoints"].shape[1]) if "keypoints" in parts else 0


def keypoint_sigmas(evaluation: Evaluation) -> np.ndarray | None:
    """Tolerance of each keypoint; None where there are none."""
    count = keypoint_count(evaluation)
    return sigmas_of(count) if count else None
