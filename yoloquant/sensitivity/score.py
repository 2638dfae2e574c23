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


class ImageScores:
    """What models find in the same images, and what that is worth.

    Args:
        images: The images.
    """

    def __init__(self, images: Images) -> None:
        self.images = images
        self._options = EvaluateOptions()
        self._task = spec_of(images.info.task)

    def detections(self, runner: Runner, start: int = 0, stop: int | None = None) -> list[Detections]:
        """What a model finds in every image, or in some."""
        # prepared once for all models (``Images``)
        inputs, selection = self.images.inputs[start:stop], self._options.selection
        return [self._task.select(runner(image), runner.layout, runner.info, selection) for image, _ in inputs]

    def labels(self, count: int | None = None) -> list[Truth]:
        """The labels of the first images, or of all."""
        items = zip(self.images.data.images[:count], self.images.inputs[:count], strict=True)
        return [self._task.truth(item.labels, where, self.images.info) for item, (_, where) in items]

    def references(self, found: Sequence[Detections]) -> list[Truth]:
        """What a model is sure of in the first images, as the truth that fidelity holds others against."""
        items = zip(found, self.images.inputs[: len(found)], strict=True)
        return [self._task.reference(each, self._options.reference_conf, where) for each, (_, where) in items]

    def score(self, found: Sequence[Detections], truths: Sequence[Truth], *, fidelity: bool) -> float:
        """The task's main metric of what was found in the first images, or its main fidelity, 0 to 1."""
        items = zip(found, truths, self.images.inputs[: len(found)], strict=True)
        matched = [self._task.match(each, truth, where.area_scale) for each, truth, (_, where) in items]
        matches = {prefix: [m[prefix] for m in matched] for prefix in matched[0]}
        score = self._task.fidelity if fidelity else self._task.scores
        # one row of weights, every image once: no resampling
        values = score(found, matches, truths).values(np.ones((1, len(found))))
        # a task names its main metric first
        return float(next(iter(values.values()))[0])


class Scorer(ImageScores):
    """Scores one model after another by one metric.

    Args:
        images: The images.
        metric: ``map`` or ``fidelity``.
        reference: The float model, whose confident detections are the truth of fidelity.
    """

    def __init__(self, images: Images, metric: AnalysisMetric, reference: Runner) -> None:
        super().__init__(images)
        self._fidelity = metric is not AnalysisMetric.MAP
        # once: every change is held against the same
        self._truths = self.references(self.detections(reference)) if self._fidelity else self.labels()

    def __call__(self, runner: Runner) -> float:
        """The task's main metric of a model, or its main fidelity, 0 to 1."""
        return self.score(self.detections(runner), self._truths, fidelity=self._fidelity)
