"""Scores of models on the held-back images; the float model's detections are computed once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.evaluate import EvaluateOptions
from ..runtime.core.detections import Detections
from ..runtime.core.letterbox import Letterbox
from ..runtime.core.matching import Truth
from ..runtime.core.runner import Runner
from ..runtime.tasks import spec_of
from ..sensitivity.images import Images


@dataclass(frozen=True)
class HeldBackScores:
    """How good a model is.

    Attributes:
        fidelity: The task's main fidelity to the float model, 0 to 1.
        accuracy: The task's main metric on labels, 0 to 1; None without labels.
    """

    fidelity: float
    accuracy: float | None


class HeldBackScorer:
    """Scores one model after another.

    Args:
        images: The images.
        reference: The float model that everything is held against.
    """

    def __init__(self, images: Images, reference: Runner) -> None:
        self.images, self.reference = images, reference
        self._options = EvaluateOptions()
        self._task = spec_of(images.info.task)
        self._reference: list[Detections] = []
        self._accuracy: dict[int, float | None] = {}

    def __call__(self, runner: Runner, share: float = 1.0) -> HeldBackScores:
        """Score a model on the first images.

        Args:
            runner: The model.
            share: Of the images, up to 1; at least one is taken.
        """
        count = self.count(share)
        found, places = self._detections(runner, 0, count), self._places(count)
        # the reference is extended as far as anybody asked, never computed twice
        self._know(count)
        options, references = self._options, self._reference[:count]
        confident = [
            self._task.reference(f, options.reference_conf, w) for f, w in zip(references, places, strict=True)
        ]
        return HeldBackScores(self._score(found, confident, places, fidelity=True), self._labelled(found, places))

    def count(self, share: float) -> int:
        """How many images a share of them is."""
        return max(1, round(share * len(self.images.data)))

    def reference_accuracy(self, share: float = 1.0) -> float | None:
        """The float model's main metric on the first images; None without labels."""
        count = self.count(share)
        if count not in self._accuracy:
            self._know(count)
            self._accuracy[count] = self._labelled(self._reference[:count], self._places(count))
        return self._accuracy[count]

    def _know(self, count: int) -> None:
        self._reference += self._detections(self.reference, len(self._reference), count)

    def _detections(self, runner: Runner, start: int, stop: int) -> list[Detections]:
        # prepared once for all models (``Images``)
        inputs, selection = self.images.inputs[start:stop], self._options.selection
        return [self._task.select(runner(image), runner.layout, runner.info, selection) for image, _ in inputs]

    def _places(self, count: int) -> list[Letterbox]:
        return [where for _, where in self.images.inputs[:count]]

    def _labelled(self, found: Sequence[Detections], places: Sequence[Letterbox]) -> float | None:
        items = self.images.data.images[: len(found)]
        if not any(len(item.classes) for item in items):
            return None
        truths = [self._task.truth(i.labels, w, self.images.info) for i, w in zip(items, places, strict=True)]
        return self._score(found, truths, places, fidelity=False)

    def _score(
        self, found: Sequence[Detections], truths: Sequence[Truth], places: Sequence[Letterbox], *, fidelity: bool
    ) -> float:
        matched = [self._task.match(f, t, w.area_scale) for f, t, w in zip(found, truths, places, strict=True)]
        matches = {prefix: [m[prefix] for m in matched] for prefix in matched[0]}
        score = self._task.fidelity if fidelity else self._task.scores
        # one row of weights, every image once: no resampling
        values = score(list(found), matches, list(truths)).values(np.ones((1, len(found))))
        # a task names its main metric first
        return float(next(iter(values.values()))[0])
