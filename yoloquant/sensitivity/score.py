"""mAP and fidelity of a model that runs in PyTorch, with the decode, NMS and matching that validation has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..evaluation.evaluate import EvaluateOptions
from ..runtime.core.detections import Detections
from ..runtime.core.matching import Truth
from ..runtime.core.runner import Runner
from ..runtime.tasks import spec_of
from .analyze_options import AnalysisMetric
from .images import Images


class Scorer:
    """Scores one model after another on the same images.

    Args:
        images: The images.
        metric: ``map`` or ``fidelity``.
        reference: The float model, whose confident detections are the truth of fidelity.
    """

    def __init__(self, images: Images, metric: AnalysisMetric, reference: Runner) -> None:
        self.images = images
        self._options = EvaluateOptions()
        self._task = spec_of(images.info.task)
        self._against_model = metric is not AnalysisMetric.MAP
        # once: every change is held against the same
        self._truths = self._labels() if metric is AnalysisMetric.MAP else self._references(reference)

    def __call__(self, runner: Runner) -> float:
        """The task's main metric of a model, or its main fidelity, 0 to 1."""
        detections = self.detections(runner)
        places = (where for _, where in self.images.inputs)
        matched = [
            self._task.match(f, t, w.area_scale) for f, t, w in zip(detections, self._truths, places, strict=True)
        ]
        matches = {prefix: [m[prefix] for m in matched] for prefix in matched[0]}
        score = self._task.fidelity if self._against_model else self._task.scores
        # one row of weights, every image once: no resampling
        values = score(detections, matches, self._truths).values(np.ones((1, len(detections))))
        return float(next(iter(values.values()))[0])

    def detections(self, runner: Runner) -> list[Detections]:
        """What a model finds in every image."""
        selection = self._options.selection
        return [
            self._task.select(runner(image), runner.layout, runner.info, selection) for image, _ in self.images.inputs
        ]

    def _labels(self) -> Sequence[Truth]:
        items = zip(self.images.data.images, self.images.inputs, strict=True)
        return [self._task.truth(item.labels, where, self.images.info) for item, (_, where) in items]

    def _references(self, reference: Runner) -> Sequence[Truth]:
        items = zip(self.detections(reference), self.images.inputs, strict=True)
        return [self._task.reference(found, self._options.reference_conf, where) for found, (_, where) in items]
