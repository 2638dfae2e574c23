"""Picking images that show people what an artifact does differently."""

from __future__ import annotations

import numpy as np

from ..runtime.core.detections import Detections
from ..runtime.core.letterbox import Letterbox
from .evaluate import Evaluation
from .results import Example, Lines


def disagreement(evaluation: Evaluation, name: str) -> np.ndarray:
    """How much an artifact differs from the baseline on each image.

    Counts the baseline's confident detections that the artifact lost and its own that the baseline lacks, and adds the
    change of confidence of those that both have.

    Returns:
        float64 (images,).
    """
    record, baseline = evaluation.records[name], evaluation.baseline
    threshold = evaluation.options.reference_conf
    result = np.zeros(len(evaluation.data))
    for i, (found, matches) in enumerate(zip(record.detections, record.reference_matches, strict=True)):
        confident = found.confidence > threshold
        both = confident & (matches.partner >= 0)
        lost = len(evaluation.references[i].classes) - both.sum()
        new = confident.sum() - both.sum()
        change = np.abs(found.confidence[both] - baseline.detections[i].confidence[matches.partner[both]]).sum()
        result[i] = lost + new + change
    return result


def pick_examples(evaluation: Evaluation, name: str, count: int) -> list[Example]:
    """Choose images of one artifact: those where it differs most from the baseline, and a typical one at the end.

    Args:
        evaluation: What was measured.
        name: The artifact's runner.
        count: Number of images.
    """
    if count <= 0:
        return []
    differs = disagreement(evaluation, name)
    order = np.argsort(-differs, kind="stable").tolist()
    # Images on which either finds something, where there are any: others show people little.
    busy = [i for i in order if differs[i] or len(evaluation.references[i].classes)] or order
    chosen = busy[: max(1, count - 1)]
    # The median one: the worst alone would make every artifact look broken.
    typical = busy[len(busy) // 2]
    if len(chosen) < count and typical not in chosen:
        chosen.append(typical)
    return [_example(evaluation, name, i) for i in chosen]


def _example(evaluation: Evaluation, name: str, index: int) -> Example:
    threshold, where = evaluation.options.reference_conf, evaluation.letterboxes[index]
    fp32, quantized = (r.detections[index].above(threshold) for r in (evaluation.baseline, evaluation.records[name]))
    return Example(
        image=str(evaluation.data.images[index].path),
        target=name,
        fp32=_rows(fp32, where),
        quantized=_rows(quantized, where),
        fp32_lines=_lines(evaluation, fp32, where),
        quantized_lines=_lines(evaluation, quantized, where),
    )


def _lines(evaluation: Evaluation, found: Detections, where: Letterbox) -> tuple[Lines, ...]:
    """What shows each detection besides its box; nothing at all where no detection has anything."""
    drawn = evaluation.task.outlines(found, where)
    plain = tuple(tuple(tuple((x, y) for x, y in line) for line in one) for one in drawn)
    return plain if any(plain) else ()


def _rows(found: Detections, where: Letterbox) -> tuple[tuple[float, ...], ...]:
    boxes = where.to_original(found.xyxy).round(2).tolist()
    scores = found.confidence.round(4).tolist()
    classes = found.class_id.tolist()
    return tuple((*box, score, float(cls)) for box, score, cls in zip(boxes, scores, classes, strict=True))
