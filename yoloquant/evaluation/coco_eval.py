"""pycocotools' figures for the same results beside ours, which are Ultralytics', and why the two differ."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import UsageError
from ..runtime.tasks import TaskSpec
from ..runtime.tasks.base import Similarity
from .coco_rows import ground_truth, keypoint_sigmas, result_rows
from .evaluate import Evaluation
from .results import Accuracy, TargetResult, ValidationResult

MOST = {"bbox": 100, "segm": 100, "keypoints": 20}
"""Results of one class in an image that pycocotools scores, the surest, by what it calls the comparison."""
PREFIX = "coco_"
"""Before the names of its figures among ours."""
WHY = (
    "pycocotools counts a class's average precision as the mean of 101 precisions, and gives a label to the surest box "
    "that overlaps it enough; Ultralytics, and so yoloquant, takes the area under the interpolated curve, and gives "
    "it to the box that overlaps it most"
)
FURTHER_WHY = {
    "segm": "masks: pycocotools compares them at the image's own size and lets labels overlap; Ultralytics, and so "
    "yoloquant, at a quarter of the input's size, where a smaller object hides a larger one",
    "keypoints": "keypoints: an object's area is 0.53 of its box in both, since labels hold no other; COCO's figures "
    "take the area of its mask",
}
"""What else differs by comparison."""
TITLES = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}


@dataclass(frozen=True)
class CocoFigures:
    """What pycocotools says of one model's results.

    Attributes:
        map50_95: Mean over IoU 0.50:0.95.
        map50: At IoU 0.50.
        limit: By how much mAP50-95 rises if every result counts, not the surest 100 (or 20) of a class in an image.
        crowds: By how much it rises by crowd regions, in which results neither count as right nor as wrong.
        similarity: What was compared.
        further: The same of masks or keypoints, where the task has them.
    """

    map50_95: float
    map50: float
    limit: float
    crowds: float
    similarity: Similarity
    further: tuple[CocoFigures, ...] = ()


def require_coco_eval(task: TaskSpec, labelled: bool) -> None:
    """Refuse what cannot be scored, before work starts.

    Raises:
        UsageError: pycocotools is not installed, the task has no upright boxes, or there are no labels.
    """
    if not labelled:
        raise UsageError("coco_eval=true scores boxes against labels; give data=<data yaml> instead of source=")
    if not compared(task):
        raise UsageError(f"coco_eval=true scores upright boxes, which a {task.noun} has none of")
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError as exc:
        raise UsageError('coco_eval=true needs pycocotools: pip install "yoloquant[coco]"') from exc


def compared(task: TaskSpec) -> tuple[Similarity, ...]:
    """The comparisons of a task that pycocotools knows, the main one first."""
    return tuple(similarity for similarity in task.similarities if similarity.coco)


def coco_figures(evaluation: Evaluation) -> dict[str, CocoFigures]:
    """The figures of every model that got through; masks and keypoints need ``EvaluateOptions.keep_parts``."""
    found: dict[str, CocoFigures] = {}
    for similarity in compared(evaluation.task):
        labels = ground_truth(evaluation, similarity.coco)
        objects = [a for a in labels["annotations"] if not a["iscrowd"]]
        # The very same object where there are no crowds: then nothing is scored twice.
        plain = labels if len(objects) == len(labels["annotations"]) else {**labels, "annotations": objects}
        for name in evaluation.records:
            figures = _figures(evaluation, name, similarity, (labels, plain))
            main = found.get(name)
            found[name] = figures if main is None else replace(main, further=(*main.further, figures))
    return found


def _figures(
    evaluation: Evaluation, name: str, similarity: Similarity, truths: tuple[dict[str, Any], dict[str, Any]]
) -> CocoFigures:
    """One model's figures by one comparison; the labels are with crowds and without."""
    (labels, plain), kind = truths, similarity.coco
    results, sigmas, usual = result_rows(evaluation, name, kind), keypoint_sigmas(evaluation), MOST[kind]

    def score(truth: dict[str, Any], limit: int) -> tuple[float, float]:
        return _score(truth, results, kind, limit, sigmas)

    first = score(labels, usual)
    # Only where an image has more results of a class than that does pycocotools' limit cut anything.
    most = max((int(np.bincount(d.class_id).max()) for d in evaluation.records[name].detections if len(d)), default=0)
    every = first if most <= usual else score(labels, most)
    without = first if plain is labels else score(plain, usual)
    return CocoFigures(*first, every[0] - first[0], first[0] - without[0], similarity)


def beside(result: ValidationResult, figures: dict[str, CocoFigures]) -> ValidationResult:
    """The same result with pycocotools' figures: among the metrics, and in words."""
    shown = [_with_figures(target, figures) for target in (result.baseline, *result.targets)]
    told = tuple(f"{result.baseline.target}: {text}" for text in _told(result.baseline, figures))
    kinds = {each.similarity.coco: None for found in figures.values() for each in (found, *found.further)}
    further = tuple(FURTHER_WHY[kind] for kind in kinds if kind in FURTHER_WHY)
    return replace(result, baseline=shown[0], targets=tuple(shown[1:]), notes=(*result.notes, *told, *further, WHY))


def _with_figures(target: TargetResult, figures: dict[str, CocoFigures]) -> TargetResult:
    theirs, ours = figures.get(target.target), target.accuracy
    if theirs is None or ours is None:
        return target
    metrics = dict(ours.metrics)
    for each in (theirs, *theirs.further):
        metrics[f"{PREFIX}{each.similarity.prefix}map50_95"] = each.map50_95
        metrics[f"{PREFIX}{each.similarity.prefix}map50"] = each.map50
    return replace(target, accuracy=replace(ours, metrics=metrics), notes=(*_told(target, figures), *target.notes))


def _told(target: TargetResult, figures: dict[str, CocoFigures]) -> tuple[str, ...]:
    """One sentence for every comparison."""
    theirs, ours = figures.get(target.target), target.accuracy
    if theirs is None or ours is None:
        return ()
    return tuple(_sentence(each, ours) for each in (theirs, *theirs.further))


def _sentence(theirs: CocoFigures, ours: Accuracy) -> str:
    kind, prefix = theirs.similarity.coco, theirs.similarity.prefix
    return (
        f"pycocotools scores these {TITLES[kind]} with mAP50-95 {theirs.map50_95 * 100:.2f}, mAP50 "
        f"{theirs.map50 * 100:.2f}; ours are {_our_figure(ours, f'{prefix}map50_95') * 100:.2f} and "
        f"{_our_figure(ours, f'{prefix}map50') * 100:.2f}"
        + _share(theirs.limit, f"scoring more than {MOST[kind]} of a class and image would add")
        + _share(theirs.crowds, "crowd regions, which are no labels here, add")
    )


def _share(part: float, what: str) -> str:
    return f"; {what} {part * 100:+.2f}" if part else ""


def _our_figure(accuracy: Accuracy, name: str) -> float:
    # The main metrics are fields of their own in every report; others stand among the metrics alone.
    return float(accuracy.metrics[name] if name in accuracy.metrics else getattr(accuracy, name))


def _score(
    labels: dict[str, Any], results: Any, kind: str, most: int, sigmas: np.ndarray | None
) -> tuple[float, float]:
    """mAP50-95 and mAP50."""
    # pycocotools looks at the first of the results to see what they are, and fails without one.
    if not len(results):
        return 0.0, 0.0
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # It writes what it derives into the rows that it is given, and then cannot read them a second time.
    given = results if isinstance(results, np.ndarray) else [dict(row) for row in results]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth = COCO()
        truth.dataset = labels
        truth.createIndex()
        scorer = COCOeval(truth, truth.loadRes(given), kind)
        scorer.params.maxDets = [most]
        # One range instead of four, whose figures nobody reads here.
        scorer.params.areaRng, scorer.params.areaRngLbl = [[0, 1e10]], ["all"]
        if sigmas is not None:
            scorer.params.kpt_oks_sigmas = sigmas
        scorer.evaluate()
        scorer.accumulate()
    precision = scorer.eval["precision"][..., 0, -1]  # IoU, recall, class
    return _mean(precision), _mean(precision[:1])


def _mean(precision: np.ndarray) -> float:
    # -1 stands for classes without labels.
    known = precision[precision > -1]
    return float(known.mean()) if len(known) else float("nan")
