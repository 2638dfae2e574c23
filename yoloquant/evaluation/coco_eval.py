"""pycocotools' figures for the same boxes beside ours, which are Ultralytics', and why the two differ."""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import UsageError
from ..runtime.tasks import TaskSpec
from ..runtime.tasks.anchors import BOX
from .evaluate import Evaluation
from .results import Accuracy, TargetResult, ValidationResult

logger = logging.getLogger(__name__)

MOST = 100
"""Boxes of one class in an image that pycocotools scores, the surest."""
MAP, MAP50 = "coco_map50_95", "coco_map50"
"""Names of its figures among ours."""
WHY = (
    "pycocotools counts a class's average precision as the mean of 101 precisions, and gives a label to the surest box "
    "that overlaps it enough; Ultralytics, and so yoloquant, takes the area under the interpolated curve, and gives "
    "it to the box that overlaps it most"
)


@dataclass(frozen=True)
class CocoFigures:
    """What pycocotools says of one model's boxes.

    Attributes:
        map50_95: Mean over IoU 0.50:0.95.
        map50: At IoU 0.50.
        limit: By how much mAP50-95 rises if every box counts, not the surest 100 of a class in an image.
        crowds: By how much it rises by crowd regions, in which boxes neither count as right nor as wrong.
    """

    map50_95: float
    map50: float
    limit: float
    crowds: float


def require_coco_eval(task: TaskSpec, labelled: bool) -> None:
    """Refuse what cannot be scored, before work starts.

    Raises:
        UsageError: pycocotools is not installed, the task has no upright boxes, or there are no labels.
    """
    if not labelled:
        raise UsageError("coco_eval=true scores boxes against labels; give data=<data yaml> instead of source=")
    if BOX not in task.similarities:
        raise UsageError(f"coco_eval=true scores upright boxes, which a {task.noun} has none of")
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError as exc:
        raise UsageError('coco_eval=true needs pycocotools: pip install "yoloquant[coco]"') from exc


def coco_figures(evaluation: Evaluation) -> dict[str, CocoFigures]:
    """The figures of every model that got through."""
    labels = _labels(evaluation)
    objects = [a for a in labels["annotations"] if not a["iscrowd"]]
    # The very same object where there are no crowds: then nothing is scored twice.
    plain = labels if len(objects) == len(labels["annotations"]) else {**labels, "annotations": objects}
    found = {}
    for name, record in evaluation.records.items():
        boxes = _boxes(evaluation, name)
        first = _score(labels, boxes, MOST)
        # Only where an image has more than 100 boxes of a class does pycocotools' limit cut anything.
        most = max((int(np.bincount(d.class_id).max()) for d in record.detections if len(d)), default=0)
        every = first if most <= MOST else _score(labels, boxes, most)
        without = first if plain is labels else _score(plain, boxes, MOST)
        found[name] = CocoFigures(*first, every[0] - first[0], first[0] - without[0])
    return found


def beside(result: ValidationResult, figures: dict[str, CocoFigures]) -> ValidationResult:
    """The same result with pycocotools' figures: among the metrics, and in words."""
    shown = [_with_figures(result.baseline, figures), *(_with_figures(t, figures) for t in result.targets)]
    told = _told(result.baseline, figures)
    notes = (*result.notes, *([f"{result.baseline.target}: {told}"] if told else []), WHY)
    return replace(result, baseline=shown[0], targets=tuple(shown[1:]), notes=notes)


def _with_figures(target: TargetResult, figures: dict[str, CocoFigures]) -> TargetResult:
    theirs, ours = figures.get(target.target), target.accuracy
    if theirs is None or ours is None:
        return target
    accuracy = replace(ours, metrics={**ours.metrics, MAP: theirs.map50_95, MAP50: theirs.map50})
    return replace(target, accuracy=accuracy, notes=(_told(target, figures), *target.notes))


def _told(target: TargetResult, figures: dict[str, CocoFigures]) -> str:
    theirs, ours = figures.get(target.target), target.accuracy
    if theirs is None or ours is None:
        return ""
    return (
        f"pycocotools scores these boxes with mAP50-95 {theirs.map50_95 * 100:.2f}, mAP50 {theirs.map50 * 100:.2f}; "
        f"ours are {_box_figure(ours, 'map50_95') * 100:.2f} and {_box_figure(ours, 'map50') * 100:.2f}"
        + _share(theirs.limit, f"scoring more than {MOST} boxes of a class and image would add")
        + _share(theirs.crowds, "crowd regions, which are no labels here, add")
    )


def _share(part: float, what: str) -> str:
    return f"; {what} {part * 100:+.2f}" if part else ""


def _box_figure(accuracy: Accuracy, name: str) -> float:
    return float(accuracy.metrics.get(name, getattr(accuracy, name)))


# -- what pycocotools is given


def _labels(evaluation: Evaluation) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for index, image in enumerate(evaluation.data.images):
        height, width = evaluation.letterboxes[index].original
        x, y, w, h = (image.boxes.astype(np.float64) * [width, height, width, height]).T
        boxes = np.stack([x - w / 2, y - h / 2, w, h], axis=1)
        crowds = evaluation.data.crowds.get(image.path.name, ())
        rows = [(int(c), b, 0) for c, b in zip(image.classes, boxes.tolist(), strict=True)]
        rows += [(int(c), [left, top, right - left, bottom - top], 1) for c, left, top, right, bottom in crowds]
        annotations += [
            {
                "id": len(annotations) + place + 1,  # an annotation with id 0 is never found
                "image_id": index,
                "category_id": label,
                "bbox": box,
                # Of the box: sizes are not told apart below, but pycocotools wants a number.
                "area": box[2] * box[3],
                "iscrowd": crowd,
            }
            for place, (label, box, crowd) in enumerate(rows)
        ]
    images = [{"id": i, "width": w.original[1], "height": w.original[0]} for i, w in enumerate(evaluation.letterboxes)]
    categories = [{"id": i, "name": name} for i, name in enumerate(evaluation.names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _boxes(evaluation: Evaluation, name: str) -> np.ndarray:
    """Rows of image, x, y, width, height, score and class, (n, 7)."""
    tables = []
    for index, found in enumerate(evaluation.records[name].detections):
        boxes = evaluation.letterboxes[index].to_original(found.xyxy).astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        ids = np.full(len(boxes), float(index))
        tables.append(np.column_stack([ids, boxes, found.confidence, found.class_id]))
    return np.concatenate(tables) if tables else np.zeros((0, 7))


def _score(labels: dict[str, Any], boxes: np.ndarray, most: int) -> tuple[float, float]:
    """mAP50-95 and mAP50."""
    # pycocotools looks at the first of the results to see what they are, and fails without one.
    if not len(boxes):
        return 0.0, 0.0
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth = COCO()
        truth.dataset = labels
        truth.createIndex()
        scorer = COCOeval(truth, truth.loadRes(boxes), "bbox")
        scorer.params.maxDets = [most]
        # One range instead of four, whose figures nobody reads here.
        scorer.params.areaRng, scorer.params.areaRngLbl = [[0, 1e10]], ["all"]
        scorer.evaluate()
        scorer.accumulate()
    precision = scorer.eval["precision"][..., 0, -1]  # IoU, recall, class
    return _mean(precision), _mean(precision[:1])


def _mean(precision: np.ndarray) -> float:
    # -1 stands for classes without labels.
    known = precision[precision > -1]
    return float(known.mean()) if len(known) else float("nan")
