"""mAP and fidelity of a model that runs in PyTorch, with the decode, NMS and matching that validation has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..evaluation.evaluate import EvaluateOptions
from ..runtime.core.detections import Detections, select
from ..runtime.core.matching import Truth, match, size_index
from ..runtime.core.metrics import ap_table, class_scores
from ..targets.base import Runner
from .analyze_options import Metric
from .images import Images


class Scorer:
    """Scores one model after another on the same images.

    Args:
        images: The images.
        metric: ``map`` or ``fidelity``.
        reference: The float model, whose confident detections are the truth of fidelity.
    """

    def __init__(self, images: Images, metric: Metric, reference: Runner) -> None:
        self.images = images
        self._options = EvaluateOptions()
        self._truths = self._labels() if metric is Metric.MAP else self._references(reference)

    def __call__(self, runner: Runner) -> float:
        """mAP50-95 of a model, 0 to 1."""
        found = self.detections(runner)
        places = (where for _, where in self.images.inputs)
        matches = [match(f, t, w.area_scale) for f, t, w in zip(found, self._truths, places, strict=True)]
        scores = class_scores(found, matches, self._truths)
        return float(ap_table(scores, np.ones((1, len(found)))).map50_95[0]) if scores else 0.0

    def detections(self, runner: Runner) -> list[Detections]:
        """What a model finds in every image."""
        classes, selection = len(runner.info.names), self._options.selection
        return [select(runner(image), runner.layout, classes, selection) for image, _ in self.images.inputs]

    def _labels(self) -> Sequence[Truth]:
        found = []
        for item, (_, where) in zip(self.images.data.images, self.images.inputs, strict=True):
            boxes = where.to_input(item.boxes)
            found.append(Truth(boxes, item.classes, size_index(boxes, where.area_scale)))
        return found

    def _references(self, reference: Runner) -> Sequence[Truth]:
        found = []
        for item, (_, where) in zip(self.detections(reference), self.images.inputs, strict=True):
            sure = item.above(self._options.reference_conf)
            found.append(Truth(sure.xyxy, sure.class_id, size_index(sure.xyxy, where.area_scale)))
        return found
