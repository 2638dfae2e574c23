"""Evaluations of the same models on several data sets as one: one interval over all images, paired by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from yoloquant.data.dataset import LabelledImage, ValidationSet
from yoloquant.evaluation.evaluate import Evaluation, RunnerRecord
from yoloquant.runtime.core.matching import Matches
from yoloquant.runtime.tasks import spec_of
from yoloquant.types import ModelInfo, Task


def pooled(parts: Sequence[Evaluation]) -> Evaluation:
    """Several evaluations of the same runners as one; a runner that failed on one of the sets is left out.

    Args:
        parts: Evaluations by the rules of one task, all of them with labels or none.
    """
    first = parts[0]
    names = [name for name in first.records if all(name in part.records for part in parts)]
    images = tuple(image for part in parts for image in part.data.images)
    return replace(
        first,
        data=replace(first.data, images=images, source="all"),
        letterboxes=[b for p in parts for b in p.letterboxes],
        labels=[t for p in parts for t in p.labels],
        references=[t for p in parts for t in p.references],
        records={name: _joined([part.records[name] for part in parts]) for name in names},
    )


def unlabelled(data: ValidationSet) -> ValidationSet:
    """The same images, as if nobody had labelled them: models are compared with each other alone."""
    none = np.zeros(0, np.int64), np.zeros((0, 4), np.float32)
    return replace(data, images=tuple(LabelledImage(image.path, *none) for image in data.images))


def without_labels(evaluation: Evaluation) -> Evaluation:
    """What an evaluation says of models' agreement with the float model alone."""
    records = {
        name: replace(record, label_matches=[], further_label_matches={}) for name, record in evaluation.records.items()
    }
    return replace(evaluation, data=unlabelled(evaluation.data), records=records)


def boxes_alone(evaluation: Evaluation, data: ValidationSet, info: ModelInfo) -> Evaluation:
    """An evaluation by the boxes of its results, as a detector's, against box labels that it need not have seen.

    Args:
        evaluation: Results of a task that has boxes, of these images in this order.
        data: The images with boxes; objects of classes that the model does not know are left out.
        info: The model.
    """
    task = spec_of(Task.DETECT)
    index = {name: i for i, name in enumerate(info.names)}
    places = np.array([index.get(name, -1) for name in data.names], np.int64)
    images = []
    for image in data.images:
        kinds = places[image.classes]
        images.append(LabelledImage(image.path, kinds[kinds >= 0], image.boxes[kinds >= 0]))
    truths = [task.truth(i.labels, w, info) for i, w in zip(images, evaluation.letterboxes, strict=True)]
    records = {}
    for name, record in evaluation.records.items():
        found = zip(record.detections, truths, evaluation.letterboxes, strict=True)
        matches = [task.match(one, truth, where.area_scale)[""] for one, truth, where in found]
        records[name] = replace(record, label_matches=matches, further_label_matches={}, further_reference_matches={})
    seen = replace(data, images=tuple(images), names=info.names)
    return replace(evaluation, task=task, data=seen, labels=truths, records=records)


def _joined(records: Sequence[RunnerRecord]) -> RunnerRecord:
    return replace(
        records[0],
        detections=[d for r in records for d in r.detections],
        label_matches=[m for r in records for m in r.label_matches],
        reference_matches=[m for r in records for m in r.reference_matches],
        further_label_matches=_together(records, lambda r: r.further_label_matches),
        further_reference_matches=_together(records, lambda r: r.further_reference_matches),
        infer_ms={},
        select_ms=[],
        parts=[],
    )


def _together(
    records: Sequence[RunnerRecord], of: Callable[[RunnerRecord], Mapping[str, list[Matches]]]
) -> dict[str, list[Matches]]:
    return {prefix: [m for r in records for m in of(r)[prefix]] for prefix in of(records[0])}
